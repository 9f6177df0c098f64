"""The protocol of a model source, and the module shape every source loads as."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from toolkit.artifacts import TensorSpec

__all__ = ["Source", "load_weights", "torch_dtype"]


class Source(Protocol):
    """A PyTorch model on disk. Nothing is loaded until ``load``."""

    @property
    def name(self) -> str:
        """A short name for messages."""

    @property
    def description(self) -> str:
        """What it is, in a few words, for reports."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs ``forward`` takes by keyword, in order."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the tensors ``forward`` returns, in order."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the model is made from, for hashing."""

    def load(self, dtype: str = "float32") -> nn.Module:
        """Load in evaluation mode with floating-point weights in ``dtype``.

        The module's ``forward(**inputs)`` returns a tuple aligned with ``outputs``.
        """


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name in ``toolkit.artifacts.DTYPES``."""
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is not a torch dtype")
    return dtype


def load_weights(module: nn.Module, path: Path) -> tuple[list[str], list[str]]:
    """Copy a safetensors file into ``module`` in place, one tensor in memory at a time.

    Returns:
        The module's names that the file lacks, and the file's names that the module lacks or
        holds in another shape (with both shapes).
    """
    from safetensors import safe_open  # noqa: PLC0415  (only sources that load weights need it)

    target = dict(module.state_dict(keep_vars=True))
    surplus: list[str] = []
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118  (safe_open is not a mapping)
            tensor = file.get_tensor(name)
            if name not in target:
                surplus.append(name)
            elif target[name].shape != tensor.shape:
                found, wanted = tuple(tensor.shape), tuple(target[name].shape)
                surplus.append(f"{name} (file {found}, module {wanted})")
                target.pop(name)
            else:
                target.pop(name).copy_(tensor)
    return sorted(target), surplus
