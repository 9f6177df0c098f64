"""A source whose weights are moved by a rounding: what a stable computation may answer.

The forward error of a backward-stable computation is the exact answer to slightly different data
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter 1). One run in float32
shows one sample of such errors, and in a small case that sample can be lucky: products that
happen to cancel. Runs with moved weights show others.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.sources import Source
from toolkit.sources.base import torch_dtype

__all__ = ["ChangedSource", "NarrowedSource", "jitter"]


@dataclass(frozen=True)
class _Other:
    """What ``source`` is, but for its weights."""

    source: Source

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def description(self) -> str:
        """The source's description."""
        return self.source.description

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The source's inputs."""
        return self.source.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The source's outputs."""
        return self.source.outputs

    @property
    def files(self) -> tuple[Path, ...]:
        """The source's files."""
        return self.source.files


@dataclass(frozen=True)
class ChangedSource(_Other):
    """``source`` whose parameters ``change`` alters after they are loaded."""

    change: Callable[[nn.Module], None]

    def load(self, dtype: str = "float32") -> nn.Module:
        """Load and change the weights."""
        module = self.source.load(dtype)
        self.change(module)
        return module


@dataclass(frozen=True)
class NarrowedSource(_Other):
    """``source`` with the weights it has in ``precision``, whatever it is computed in."""

    precision: str

    def load(self, dtype: str = "float32") -> nn.Module:
        """Load in ``precision`` and convert."""
        return self.source.load(self.precision).to(torch_dtype(dtype))


def jitter(module: nn.Module, seed: int) -> None:
    """Replace every floating-point parameter w by round(w (1 + u eps)), u uniform in [-1, 1].

    ``eps`` is the spacing of w's dtype at 1, so w moves by two units in its last place at most,
    by less than one on average. The numbers depend on the seed and the parameter's name only;
    tied weights stay tied.
    """
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not weight.is_floating_point():
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            shift = torch.rand(weight.shape, generator=generator).mul_(2).sub_(1)
            shift.mul_(torch.finfo(weight.dtype).eps)
            weight.addcmul_(weight, shift.to(weight.dtype))
