"""Whether a model's outputs depend on a tensor, tried with a tensor that is not a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from toolkit.artifacts import Shapes
from toolkit.feeds import make_feeds
from toolkit.sources import Source

__all__ = ["reaching"]


def reaching(source: Source, names: Sequence[str], shapes: Shapes) -> tuple[str, ...]:
    """Those of the tensors that an output depends on.

    NaN goes through whatever a graph computes from it, so a model is run with NaN in their place.
    Tensors of whole numbers have none and are taken to be read.

    Args:
        source: The model.
        names: Of its parameters and buffers.
        shapes: The range of each of its inputs' dimensions.
    """
    module = source.load("float32")
    tensors: dict[str, torch.Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    dims = {name: span.opt for name, span in shapes.items()}
    drawn = make_feeds(source.inputs, dims, np.random.default_rng(0))
    feeds = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in drawn.items()}
    before = _nans(module, feeds)
    whole = tuple(name for name in names if not tensors[name].is_floating_point())
    floats = [name for name in names if name not in whole]
    found = [name for name in floats if _reaches(module, tensors[name], feeds, before)]
    return (*whole, *found)


def _reaches(
    module: nn.Module, tensor: torch.Tensor, feeds: Mapping[str, torch.Tensor], before: int
) -> bool:
    with torch.no_grad():
        kept = tensor.clone()
        tensor.fill_(float("nan"))
        try:
            return _nans(module, feeds) != before
        finally:
            tensor.copy_(kept)


def _nans(module: nn.Module, feeds: Mapping[str, torch.Tensor]) -> int:
    with torch.no_grad():
        outputs: tuple[torch.Tensor, ...] = module(**feeds)
    return sum(int(torch.isnan(output).sum()) for output in outputs)
