"""New weights in an exported graph: which PyTorch tensor lies where in it, found by content."""

from toolkit.refit.matching import AGAIN, Leaf, Place, Refit, refit_graph

__all__ = ["AGAIN", "Leaf", "Place", "Refit", "refit_graph"]
