"""The layers of experts of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphs import store
from graphs.moe.experts import ready_blocks
from graphs.moe.layers import ExpertLayer, layers_of
from graphs.passes.base import Pass
from graphs.passes.find_gating import FindGating

__all__ = ["expert_layers"]


def expert_layers(path: Path, first: Sequence[Pass] = ()) -> tuple[ExpertLayer, ...]:
    """The layers of experts of the model at ``path``: lowered ones, then others in graph order.

    Args:
        path: An ONNX file, which is only read.
        first: Passes that are applied in memory before, such as ``FindMoeBlocks``.

    Raises:
        GraphError: If the file cannot be used.
    """
    model = store.load(path)
    for step in first:
        step.apply(model)
    if ready_blocks(model.graph)[0]:
        FindGating().apply(model)  # in memory only: what the routing is can be told then
        model.graph.sort()
    return layers_of(model)
