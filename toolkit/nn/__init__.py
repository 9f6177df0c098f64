"""PyTorch layers for one's own models that leave as operators of ours.

They need nothing but PyTorch: a model that uses them trains anywhere, and its export keeps what
makes them cheap, an expert that no token chose.
"""

from toolkit.nn.experts import combine, expert_linear
from toolkit.nn.sparse_moe import SparseMoE, balance_loss

__all__ = ["SparseMoE", "balance_loss", "combine", "expert_linear"]
