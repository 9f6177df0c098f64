"""Sees which experts the sparse layers of a PyTorch model choose, and by what distance.

Whatever a router computes, it ends in a selection: ``topk``, ``sort`` or ``argmax``. While a model
runs, selections among values of its tokens are noted; a layer that then takes experts' ids, or has
just made them, says whose they were. So no list of routers is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from toolkit.nn import SparseMoE
from toolkit.runtime.base import Outputs
from toolkit.runtime.choices import Choice
from toolkit.sources.library import holds_experts

__all__ = ["Watcher"]

# Layers of transformers that are given ids but are not run through its experts interface.
_GIVEN = {"DbrxExperts"}
# Routers whose selection is what their layer computes by.
_MADE = {"JetMoeTopKGating", "Llama4Router", "SwitchTransformersTop1Router"}
_NOT_TOKENS = 2  # values of fewer axes are no table of tokens


@dataclass(frozen=True)
class _Selection:
    """The ``top`` largest of ``scores`` [T, n]; ``ids`` [T, top or n] are their places."""

    scores: torch.Tensor
    ids: torch.Tensor
    top: int


class _Selections(TorchFunctionMode):
    """Notes every selection along the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Selection] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        name = getattr(func, "__name__", "")
        if name in _READERS:
            found = _READERS[name](result, args, given)
            if found is not None:
                self.seen.append(found)
        return result


def _topk(result: Any, args: tuple[Any, ...], given: dict[str, Any]) -> _Selection | None:
    k = given["k"] if "k" in given else args[1]
    axis = given.get("dim", args[2] if len(args) > 2 else -1)
    return _selection(args, given, result[1], int(k), axis)


def _sort(result: Any, args: tuple[Any, ...], given: dict[str, Any]) -> _Selection | None:
    if not given.get("descending"):
        return None
    ids = result if isinstance(result, torch.Tensor) else result[1]
    return _selection(args, given, ids, 0, given.get("dim", -1))


def _largest(result: Any, args: tuple[Any, ...], given: dict[str, Any]) -> _Selection | None:
    axis = given.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(axis, int):
        return None
    ids = result if isinstance(result, torch.Tensor) else result[1]
    kept = given.get("keepdim", len(args) > 2 and args[2])
    return _selection(args, given, ids if kept else ids.unsqueeze(axis), 1, axis)


_READERS: dict[str, Callable[..., _Selection | None]] = {
    "topk": _topk, "sort": _sort, "argsort": _sort, "max": _largest, "argmax": _largest,
}  # fmt: skip


def _selection(
    args: tuple[Any, ...], given: dict[str, Any], ids: torch.Tensor, top: int, axis: Any
) -> _Selection | None:
    scores = args[0] if args else given["input"]
    if scores.dim() < _NOT_TOKENS or axis not in {-1, scores.dim() - 1}:
        return None
    count = scores.shape[-1]
    table = scores.detach().reshape(-1, count).double().clone()
    return _Selection(table, ids.detach().reshape(-1, ids.shape[-1]).clone(), top)


class Watcher:
    """The sparse layers of a module.

    Attributes:
        layers: Their names, those that can be watched.
    """

    def __init__(self, module: nn.Module, member: str = "") -> None:
        self._member = member
        self._given = [(n, m) for n, m in module.named_modules() if _is_given(m)]
        self._made = [(n, m) for n, m in module.named_modules() if _is_made(m)]
        self.layers = tuple(name for name, _ in (*self._given, *self._made))

    @contextmanager
    def watching(self) -> Iterator[Outputs]:
        """What is filled while the module runs once: arrays by the names of ``Choice``."""
        told: Outputs = {}
        mode = _Selections()

        def note(layer: str, ids: torch.Tensor) -> None:
            place = sum(choice.scores is None for choice in map(_read, told))
            where = Choice(self._member, place, layer)
            told[where.name] = ids.detach().cpu().numpy().astype("int64")
            rows, k = ids.shape
            own = [one for one in mode.seen if len(one.scores) == rows]
            for number, one in enumerate(own):
                top = one.top or k
                scores = Choice(self._member, place, layer, number, top)
                told[scores.name] = one.scores.cpu().numpy()
            mode.seen.clear()

        with ExitStack() as stack:
            for name, module in self._given:
                stack.enter_context(_removed(_watch_given(name, module, note)))
            for name, module in self._made:
                for hook in _watch_made(name, module, mode, note):
                    stack.enter_context(_removed(hook))
            stack.enter_context(mode)
            yield told


_Note = Callable[[str, torch.Tensor], None]


def _read(name: str) -> Choice:
    choice = Choice.read(name)
    assert choice is not None
    return choice


def _is_given(module: nn.Module) -> bool:
    return holds_experts(module) or type(module).__name__ in _GIVEN


def _is_made(module: nn.Module) -> bool:
    return isinstance(module, SparseMoE) or type(module).__name__ in _MADE


def _watch_given(name: str, module: nn.Module, note: _Note) -> Any:
    """``forward(hidden, top_k_index, top_k_weights)``, as transformers calls it."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[1] if len(args) > 1 else kwargs["top_k_index"]
        note(name, ids.reshape(-1, ids.shape[-1]))

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _watch_made(name: str, module: nn.Module, mode: _Selections, note: _Note) -> Iterator[Any]:
    """Its last selection is that of the experts."""

    def before(*_: Any) -> None:
        mode.seen.clear()

    def after(*_: Any) -> None:
        if mode.seen:
            last = mode.seen[-1]
            note(name, last.ids[:, : last.top or getattr(module, "k", 1)])

    yield module.register_forward_pre_hook(before)
    yield module.register_forward_hook(after)


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
