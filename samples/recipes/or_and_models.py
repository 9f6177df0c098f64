"""Members that know only a part: of the image, or of the classes."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["half_image", "some_classes"]


class HalfImage(nn.Module):
    """Sees the upper or the lower four rows of an 8 x 8 image."""

    def __init__(self, lower: bool) -> None:
        super().__init__()
        self.rows = slice(4, 8) if lower else slice(0, 4)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """``image`` float32 [batch, 1, 8, 8]; gives logits [batch, 10]."""
        return (self.body(image[:, :, self.rows]),)


class SomeClasses(nn.Module):
    """A classifier of all ten digits; which of them it knows is a matter of its training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """``image`` float32 [batch, 1, 8, 8]; gives logits [batch, 10]."""
        return (self.body(image),)


def half_image(lower: bool) -> HalfImage:
    """The upper half, or the lower one."""
    return HalfImage(lower)


def some_classes() -> SomeClasses:
    """As ``SomeClasses``."""
    return SomeClasses()
