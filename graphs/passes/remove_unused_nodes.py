"""Remove nodes, initializers and functions that no output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from graphs.passes.base import PassReport
from graphs.tensors import nodes_of

__all__ = ["RemoveUnusedNodes"]


@dataclass(frozen=True)
class RemoveUnusedNodes:
    """Removes what no graph output depends on. Inputs and outputs stay as they are."""

    name: ClassVar[str] = "remove_unused_nodes"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of removed nodes, initializers and functions."""
        before = _content(model)
        common.RemoveUnusedNodesPass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass()(model)
        after = {id(thing) for thing, _ in _content(model)}
        return PassReport(
            self.name, tuple(name for thing, name in before if id(thing) not in after)
        )

    def ensures(self, model: ir.Model) -> None:
        """Removal is the library's; the checker at the end judges the graph."""


def _content(model: ir.Model) -> list[tuple[object, str]]:
    """Everything that can be removed, with its name; nodes need not have one of their own."""
    return [
        *((node, node.name or node.op_type) for node in nodes_of(model)),
        *((value, str(value.name)) for value in model.graph.initializers.values()),
        *((function, function.name) for function in model.functions.values()),
    ]
