"""The two ensembles by their textbook formulas, in float64 PyTorch.

Independent of the toolkit on purpose: the demo holds what the toolkit ships against this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["linear", "log_linear"]


def linear(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Log of the mean of the members' probabilities, [batch, classes]."""
    probabilities = [torch.softmax(member.double(), dim=-1) for member in logits]
    return torch.log(torch.stack(probabilities).mean(dim=0))


def log_linear(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Log of the normalised geometric mean of the members' probabilities, [batch, classes]."""
    log_probabilities = [torch.log_softmax(member.double(), dim=-1) for member in logits]
    mean = torch.stack(log_probabilities).mean(dim=0)
    return mean - torch.logsumexp(mean, dim=-1, keepdim=True)
