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
        before = _names(model)
        common.RemoveUnusedNodesPass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass()(model)
        after = set(_names(model))
        return PassReport(self.name, tuple(name for name in before if name not in after))

    def ensures(self, model: ir.Model) -> None:
        """Removal is the library's; the checker at the end judges the graph."""


def _names(model: ir.Model) -> list[str]:
    nodes = [node.name or node.op_type for node in nodes_of(model)]
    functions = [function.name for function in model.functions.values()]
    return [*nodes, *model.graph.initializers, *functions]
