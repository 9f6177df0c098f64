"""Compute in half precision where that is safe, in float32 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes import common

from graphs.errors import GraphError
from graphs.halves import UNDERFLOW, Halves
from graphs.lowering import Lowering, matches
from graphs.passes.base import PassReport
from graphs.retyping import lift_float_constants, retype

__all__ = ["MixedPrecision"]

_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class MixedPrecision:
    """Gives nodes half-precision inputs and outputs, with a ``Cast`` wherever the type changes.

    Cases:

    1. products, activations and sums of two values are lowered; nodes that only move elements
       follow what they read;
    2. norms (as operators, or as reductions, roots and what divides by them), softmax with its
       scale and mask, exponentials, logarithms, powers, sines, resizing, comparisons, everything
       computed from integers alone (positions, angles, masks), functions, and bodies of control
       flow with what they capture stay in float32, and so does what would be cast there and back;
    3. a node stays if a constant of it does not fit: a finite value beyond the largest number, more
       than ``underflow`` of the values become zero, or rounding moves it by more than 0.2 % of its
       norm (16 times that in bfloat16): a near miss;
    4. operators of which nothing is known, functions of others and control flow are near misses;
    5. weights that only lowered nodes read are stored in half precision, rounded to nearest, one in
       memory at a time; a weight that both read is stored in both.

    Attributes:
        precision: ``float16`` or ``bfloat16``.
        keep_float32: Shell patterns of node names that stay in float32.
        io: ``keep`` leaves the types of the graph's inputs and outputs, ``half`` lowers them.
        underflow: The largest fraction of a constant's values that may become zero.
        only: Patterns of node names that may be lowered at all: for measuring one group at a time.
    """

    name: ClassVar[str] = "mixed_precision"

    precision: Literal["float16", "bfloat16"] = "float16"
    keep_float32: tuple[str, ...] = ()
    io: Literal["keep", "half"] = "keep"
    underflow: float = UNDERFLOW
    only: tuple[str, ...] = ("*",)

    def requires(self, model: ir.Model) -> None:
        """Float32 to lower, every type known, and a pattern that matches a node at least once."""
        if self.precision not in _TYPES:
            raise GraphError(f"the precision is {self.precision!r}, wanted float16 or bfloat16")
        if any(_untyped(model)):
            common.ShapeInferencePass()(model)
        for value in _untyped(model):
            raise GraphError(
                f"the type of {value.name!r} is not known, so it cannot be told what to cast",
                hint="run onnx.shape_inference on the model first",
            )
        types = {value.dtype for node in model.graph for value in node.outputs}
        if ir.DataType.FLOAT not in types:
            found = ", ".join(sorted(t.name.lower() for t in types if t is not None))
            raise GraphError(f"there is no float32 to lower, the graph computes in {found}")
        names = [node.name for node in model.graph]
        for pattern in (*self.keep_float32, *self.only):
            if not any(matches(name, (pattern,)) for name in names):
                raise GraphError(
                    f"no node has a name like {pattern!r}",
                    hint="names are <member>/<module>/<operator>, such as "
                    + ", ".join(str(name) for name in names[:2]),
                )

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of the lowered nodes."""
        lift_float_constants(model.graph)
        halves = Halves(_TYPES[self.precision], self.underflow)
        plan = Lowering(model, self.keep_float32, halves.misfit)
        lowered = [node for node in plan.lowered if matches(node.name, self.only)]
        if lowered:
            retype(model.graph, lowered, halves, io=self.io == "half")
        return PassReport(
            self.name, tuple(node.name or node.op_type for node in lowered), tuple(plan.misses)
        )

    def ensures(self, model: ir.Model) -> None:
        """No node reads floats of two precisions, and no cast undoes another."""
        for node in model.graph:
            types = {v.dtype for v in node.inputs if v is not None}
            if {ir.DataType.FLOAT, _TYPES[self.precision]} <= types and not _may_mix(node, model):
                raise GraphError(f"{self.name} left {node.name!r} with inputs of two precisions")
            before = (
                node.inputs[0].producer() if node.op_type == "Cast" and node.inputs[0] else None
            )
            if before is not None and before.op_type == "Cast":
                types = {node.outputs[0].dtype, before.outputs[0].dtype}
                if types == {ir.DataType.FLOAT, _TYPES[self.precision]}:
                    raise GraphError(
                        f"{self.name} left {node.name!r}, which undoes {before.name!r}"
                    )


def _may_mix(node: ir.Node, model: ir.Model) -> bool:
    """Functions and operators like ``Resize`` have inputs of types of their own."""
    return node.op_identifier() in model.functions or node.op_type in {
        "Resize",
        "If",
        "Loop",
        "Scan",
    }


def _untyped(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph:
        yield from (v for v in node.inputs if v is not None and v.dtype is None)
        yield from (v for v in node.outputs if v.name and v.dtype is None)
