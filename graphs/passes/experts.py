"""Layers of experts become what runs: conditionals, rows, all rows, or one batched product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import onnx_ir as ir

from graphs.moe.all_rows import to_batched, to_dense
from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ready_blocks
from graphs.moe.layers import layer_of, record
from graphs.moe.native import to_native
from graphs.moe.slabs import Slabs
from graphs.moe.sorted_rows import to_conditionals, to_rows
from graphs.moe.tensorrt_native import to_tensorrt_native
from graphs.passes.base import NearMiss, PassReport
from graphs.passes.remove_unused_nodes import RemoveUnusedNodes

__all__ = [
    "ExpertsToBatched",
    "ExpertsToConditionals",
    "ExpertsToDense",
    "ExpertsToNative",
    "ExpertsToRows",
]

_Lowering = Callable[[ExpertBlock, ir.Model, Slabs], ir.Value]


@dataclass(frozen=True)
class _ExpertsPass:
    """What the lowerings have in common: which blocks, and taking the place of their output.

    Attributes:
        only: Shell patterns of the names of blocks, which are those of their last nodes.
    """

    name: ClassVar[str]
    lower: ClassVar[_Lowering]

    only: tuple[str, ...] = ("*",)

    def requires(self, model: ir.Model) -> None:
        """Any graph will do: in one without experts nothing is to be done."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the blocks that were rewritten."""
        blocks, misses = ready_blocks(model.graph)
        chosen = [b for b in blocks if any(fnmatchcase(b.name, p) for p in self.only)]
        slabs = Slabs(model.graph)
        layers = [layer_of(block, self.name) for block in chosen]
        for block in chosen:
            self.rewrite(block, model, slabs, misses)
        if layers:
            slabs.drop_unused()
            RemoveUnusedNodes().apply(model)
            record(model, layers)
        return PassReport(self.name, tuple(block.name for block in chosen), tuple(misses))

    def rewrite(
        self, block: ExpertBlock, model: ir.Model, slabs: Slabs, misses: list[NearMiss]
    ) -> None:
        """Lower a block in place; ``misses`` learns what was done otherwise."""
        del misses
        _replace(block, type(self).lower(block, model, slabs), model.graph)

    def ensures(self, model: ir.Model) -> None:
        """The replacement is by construction; what is left are near misses."""


class ExpertsToConditionals(_ExpertsPass):
    """Sorts the rows by expert once and runs each expert that has rows, behind an ``If``.

        rows_e = x[token_of_row[offsets[e] : offsets[e + 1]]]
        y_e = If(active[e], FFN_e(rows_e), rows_e)

    Slices stand outside the ``If``, weights in the main graph, and there is one level, as TensorRT
    and ONNX Runtime both want it. A block whose rows come out wider or narrower than they went in
    is lowered as by ``experts_to_rows`` and reported: the branch that does not run would have
    another shape.
    """

    name: ClassVar[str] = "experts_to_conditionals"
    lower: ClassVar[_Lowering] = staticmethod(to_conditionals)

    def rewrite(
        self, block: ExpertBlock, model: ir.Model, slabs: Slabs, misses: list[NearMiss]
    ) -> None:
        """Rows without an ``If`` where branches would differ."""
        sides = [None if v.shape is None else v.shape[1] for v in (block.x, block.output)]
        if sides[0] == sides[1] and block.x.dtype == block.output.dtype:
            _replace(block, to_conditionals(block, model, slabs), model.graph)
            return
        reason = f"its rows go in {sides[0]} wide and come out {sides[1]} wide: without an If"
        misses.append(NearMiss(block.name, reason))
        _replace(block, to_rows(block, model, slabs), model.graph)


class ExpertsToRows(_ExpertsPass):
    """As conditionals without the ``If``: a product with no rows costs next to nothing.

    y_e = FFN_e(x[token_of_row[offsets[e] : offsets[e + 1]]])
    """

    name: ClassVar[str] = "experts_to_rows"
    lower: ClassVar[_Lowering] = staticmethod(to_rows)


class ExpertsToDense(_ExpertsPass):
    """Every expert runs on every token, and each slot takes the one it chose: static shapes."""

    name: ClassVar[str] = "experts_to_dense"
    lower: ClassVar[_Lowering] = staticmethod(to_dense)


class ExpertsToBatched(_ExpertsPass):
    """One batched product over a padded table [E, C] of rows: static shapes, few nodes.

    The capacity C is the number of tokens, so none is ever dropped.
    """

    name: ClassVar[str] = "experts_to_batched"
    lower: ClassVar[_Lowering] = staticmethod(to_batched)


@dataclass(frozen=True)
class ExpertsToNative(_ExpertsPass):
    """One node of a runtime's own operator for the experts and their sum.

    For ONNX Runtime that is ``com.microsoft.MoE``, which gates as well: float32 on the CPU, softmax
    routing, and SiLU, ReLU or gated SiLU activations. For TensorRT it is ``TRT_MoE``, with any
    router, gated SiLU and no biases: the MoE layer of TensorRT 11 and later, documented for compute
    capability 10.0, 10.3 and 11.0; earlier versions and ONNX Runtime run the body that the graph
    defines for it, all experts on all tokens. A block that the operator cannot compute is lowered
    as by ``experts_to_rows`` and reported.

    Attributes:
        runtime: Whose operator.
    """

    name: ClassVar[str] = "experts_to_native"
    lower: ClassVar[_Lowering] = staticmethod(to_rows)

    runtime: Literal["onnxruntime", "tensorrt"] = "onnxruntime"

    def rewrite(
        self, block: ExpertBlock, model: ir.Model, slabs: Slabs, misses: list[NearMiss]
    ) -> None:
        """Rows where the operator does not fit."""
        native = to_native if self.runtime == "onnxruntime" else to_tensorrt_native
        reason = native(block, model)
        if reason is not None:
            misses.append(NearMiss(block.name, f"{reason}: on its rows instead"))
            super().rewrite(block, model, slabs, misses)


def _replace(block: ExpertBlock, result: ir.Value, graph: ir.Graph) -> None:
    """Readers of the block's output read ``result``, which takes over its name and shape."""
    old = block.output
    name, shape = old.name, old.shape
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(block.nodes, safe=True)
    result.name, result.shape = name, shape
