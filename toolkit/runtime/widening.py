"""A float32 module that computes in float64, with one block of its layers in float64 at a time.

A model's weights in float64 take twice the memory that they have as float32. Widening is exact, so
it can be done when a block of layers is entered and taken back when the next one is: the answers
are those of the whole model in float64, to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from toolkit.runtime.jitter import ChangedSource, NarrowedSource
from toolkit.sources import HuggingFaceSource, Source

__all__ = ["is_large", "widen_by_blocks"]

_LARGE = 1 << 29  # bytes of files, from which on memory matters more than a few copies of weights


def is_large(source: Source) -> bool:
    """Whether its reference is computed block by block: a large model of transformers.

    A factory's own module may read its weights where no hook sees it. Changes that a source makes
    to its weights are made in float32 then.
    """
    if isinstance(source, ChangedSource | NarrowedSource):
        return is_large(source.source)
    if not isinstance(source, HuggingFaceSource):
        return False
    weights = [path for path in source.files if path.suffix == ".safetensors"]
    return sum(path.stat().st_size for path in weights) >= _LARGE


def widen_by_blocks(module: nn.Module) -> None:
    """Make ``module`` compute in float64, in place; its blocks' weights stay float32 at rest.

    A block is an item of an outermost ``nn.ModuleList``, as transformers keep their layers. It is
    in float64 from when it, or any module in it, is called until another block is. The rest, and
    what blocks share with it or with each other, is widened for good: without blocks, everything.
    """
    blocks = list(dict.fromkeys(_blocks(module)))
    owners = _owners(module, blocks)
    kept = [_own(block, owners) for block in blocks]
    resting = {id(parameter) for parameters in kept for parameter in parameters}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in resting:
            _widen(tensor)
    workspace = _Workspace(max((_count(parameters) for parameters in kept), default=0))
    for block, parameters in zip(blocks, kept, strict=True):
        entry = partial(_enter, workspace, parameters)
        for inner in block.modules():
            inner.register_forward_pre_hook(entry)


def _widen(tensor: torch.Tensor) -> None:
    if tensor.is_floating_point():
        # A buffer cannot be replaced without its owner, its data can.
        tensor.data = tensor.data.double()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _owners(module: nn.Module, blocks: list[nn.Module]) -> Counter[int]:
    """In how many blocks a parameter is, by its id; the module outside of them counts as one."""
    inside = {id(part) for block in blocks for part in block.modules()}
    outside = {
        id(parameter)
        for part in module.modules()
        if id(part) not in inside
        for parameter in part.parameters(recurse=False)
    }
    found = Counter(outside)
    for block in blocks:
        found.update(id(parameter) for parameter in block.parameters())
    return found


def _own(block: nn.Module, owners: Counter[int]) -> list[nn.Parameter]:
    return [p for p in block.parameters() if p.dtype is torch.float32 and owners[id(p)] == 1]


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


class _Workspace:
    """Where the parameters of one block are in float64."""

    def __init__(self, size: int) -> None:
        self._room = torch.empty(size, dtype=torch.float64)
        self._within: list[nn.Parameter] = []
        self._resting: list[torch.Tensor] = []

    def enter(self, parameters: list[nn.Parameter]) -> None:
        """Widen these, after the ones before have their float32 again."""
        if parameters is self._within:
            return
        for parameter, resting in zip(self._within, self._resting, strict=True):
            parameter.data = resting
        self._within, self._resting = parameters, [p.data for p in parameters]
        start = 0
        for parameter, resting in zip(parameters, self._resting, strict=True):
            wide = self._room[start : start + resting.numel()].view(resting.shape)
            parameter.data = wide.copy_(resting)
            start += resting.numel()


def _enter(workspace: _Workspace, parameters: list[nn.Parameter], *_: Any) -> None:
    """Called before a module of a block runs."""
    workspace.enter(parameters)
