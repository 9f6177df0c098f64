"""Members on disk: a factory of this repository and a safetensors file of random weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

__all__ = ["Member"]


@dataclass(frozen=True)
class Member:
    """A factory, ``package.module:callable``, and its keyword arguments."""

    factory: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path, seed: int) -> int:
        """Write a state dict with seeded random weights; returns the size of the file in bytes."""
        torch.manual_seed(seed)
        module, _, name = self.factory.partition(":")
        built = getattr(importlib.import_module(module), name)(**self.kwargs)
        save_file(built.state_dict(), path)
        return path.stat().st_size
