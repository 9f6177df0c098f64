"""Store equal initializers once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphs.passes.base import NearMiss, PassReport
from graphs.tensors import chunks_of, content_of

__all__ = ["DeduplicateInitializers"]

_PREFIX = 1 << 16


@dataclass(frozen=True)
class DeduplicateInitializers:
    """Replaces initializers of the main graph of equal dtype, shape and bytes by the first.

    Cases:

    1. an initializer whose dtype and shape no other has is never read;
    2. candidates are told apart by their first 64 KiB, and only what is still equal is hashed
       whole, in chunks from disk, so memory does not grow with the model;
    3. an initializer that is a graph output keeps its name: a near miss;
    4. one that is a graph input can be overridden by the caller and is no candidate.
    """

    name: ClassVar[str] = "deduplicate_initializers"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of the removed initializers."""
        groups = _equal(_candidates(model.graph))
        removed, kept = set(), []
        for first, *rest in groups:
            for value in rest:
                if value.is_graph_output():
                    kept.append(NearMiss(str(value.name), f"equals {first.name} but is an output"))
                    continue
                value.replace_all_uses_with(first)
                removed.add(value.name)
        sites = tuple(name for name in model.graph.initializers if name in removed)
        for name in sites:
            del model.graph.initializers[name]
        return PassReport(self.name, sites, tuple(kept))

    def ensures(self, model: ir.Model) -> None:
        """Equality was established by content; nothing is left to check."""


def _candidates(graph: ir.Graph) -> list[ir.Value]:
    values = graph.initializers.values()
    return [v for v in values if v.const_value is not None and not v.is_graph_input()]


def _equal(values: list[ir.Value]) -> list[list[ir.Value]]:
    """Groups of two or more initializers with the same content, each in graph order."""
    groups = [values]
    for key in (_type, _prefix, content_of):
        groups = [part for group in groups for part in _split(group, key)]
    return groups


def _split(
    group: Iterable[ir.Value], key: Callable[[ir.TensorProtocol], Hashable]
) -> list[list[ir.Value]]:
    parts: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in group:
        assert value.const_value is not None
        parts[key(value.const_value)].append(value)
    return [part for part in parts.values() if len(part) > 1]


def _type(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype, tuple(tensor.shape.numpy())


def _prefix(tensor: ir.TensorProtocol) -> Hashable:
    return next(chunks_of(tensor, _PREFIX), b"")
