"""Runs a model over calibration and counts what its linear layers read, a block at a time."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toolkit.checkpoint import Checkpoint
from toolkit.feeds import Case
from toolkit.sparse import Moments

__all__ = ["blocks_of", "linears_of", "moments_of", "run_case"]


class _EnoughError(Exception):
    """Raised inside a forward pass when all that is asked for has been seen."""


def linears_of(model: nn.Module, checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """Linear layers by the name that their weight has in the checkpoint, in order of the module.

    A module may stand deeper than its checkpoint says; leading parts of its name are dropped.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear) and type(module).__name__ != "Conv1D":
            continue
        parts = f"{path}.weight".split(".")
        names = (".".join(parts[place:]) for place in range(len(parts)))
        name = next((each for each in names if each in checkpoint.tensors), None)
        if name is not None:
            found[name] = module
    return found


def blocks_of(names: Collection[str]) -> list[list[str]]:
    """Names that stand together up to their last number, such as ``model.layers.3``, in order."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        match = re.match(r"(.*\.\d+)\.[^\d]", name)
        blocks.setdefault(match[1] if match else name, []).append(name)
    return list(blocks.values())


def moments_of(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    cases: Sequence[Case],
    kind: Literal["norms", "gram"],
) -> dict[str, Moments]:
    """What these layers read; the rest of the model is not run where it is not needed."""
    found = {name: Moments(kind) for name in layers}
    waiting: set[str] = set()

    def hook(name: str) -> Any:
        def seen(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], __: Tensor) -> None:
            found[name].add(given[0] if given else named["input"])
            waiting.discard(name)
            if not waiting:
                raise _EnoughError

        return seen

    handles = [
        layer.register_forward_hook(hook(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        for case in cases:
            waiting.update(layers)
            with suppress(_EnoughError):
                run_case(model, case)
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def run_case(model: nn.Module, case: Case) -> Tensor:
    """The first output."""
    feeds = {name: torch.from_numpy(array) for name, array in case.feeds().items()}
    outputs: tuple[Tensor, ...] = model(**feeds)
    return outputs[0]
