"""Experts walked over side by side: what they have in common, and where their inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphs.moe.linears import Linear, NotExpertsError, linear_of
from graphs.moe.row_wise import constant_of, row_wise

__all__ = ["ExpertSet", "Step", "experts_alike"]

_LARGE = 1 << 16  # elements of a constant that are not compared


@dataclass(frozen=True)
class Step:
    """What each expert does next.

    Attributes:
        node: The node of the first expert.
        linears: The linear layers of the experts, one for all if they are in one product; none
            if the node is row-wise.
    """

    node: ir.Node
    linears: tuple[Linear, ...] = ()

    @property
    def outputs(self) -> Sequence[ir.Value]:
        """What the first expert's node gives."""
        return (self.linears[0].output,) if self.linears else self.node.outputs


@dataclass(frozen=True)
class ExpertSet:
    """Experts that compute the same with weights of their own.

    Attributes:
        outputs: What each gives, [.., U]; one value for all if they are in one product.
        inputs: What each reads, [.., D].
        steps: In an order in which they can run.
        rank: Of the outputs.
    """

    outputs: tuple[ir.Value, ...]
    inputs: tuple[ir.Value, ...]
    steps: tuple[Step, ...]
    rank: int

    @property
    def linears(self) -> list[Linear]:
        """Those of the first expert, in order."""
        return [step.linears[0] for step in self.steps if step.linears]

    @property
    def axis(self) -> int | None:
        """Where experts are in the output; None if each has its own."""
        return self.linears[-1].axis

    @property
    def count(self) -> int:
        """E."""
        return len(self.outputs) if self.axis is None else self.linears[0].sizes[0]


def experts_alike(outputs: tuple[ir.Value, ...]) -> ExpertSet:
    """Walk up from what experts give to what they read.

    Raises:
        NotExpertsError: If they differ in more than their weights.
    """
    shape = outputs[0].shape
    if shape is None:
        raise NotExpertsError("the shapes around its experts are unknown")
    walk = _Walk(len(shape))
    walk.visit(outputs)
    if len(walk.inputs) != 1:
        read = ", ".join(str(values[0].name) for values in walk.inputs) or "constants alone"
        raise NotExpertsError(f"its experts read {read}, wanted one value")
    found = ExpertSet(outputs, walk.inputs[0], tuple(walk.steps), len(shape))
    axes = {linear.axis for linear in found.linears}
    counts = {linear.sizes[0] for linear in found.linears if linear.axis is not None}
    if len(axes) != 1 or len(counts) > 1:
        raise NotExpertsError("its linear layers do not have experts in one place")
    return found


@dataclass
class _Walk:
    rank: int
    steps: list[Step] = field(default_factory=list)
    inputs: list[tuple[ir.Value, ...]] = field(default_factory=list)
    met: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)

    def visit(self, values: tuple[ir.Value, ...]) -> None:
        """Add what gives ``values``, one of each expert, after what that reads."""
        first = values[0]
        if first in self.met:
            if self.met[first] != values:
                raise NotExpertsError("its experts are not wired alike")
            return
        self.met[first] = values
        if _one_constant(values):
            return
        nodes = [value.producer() for value in values]
        shared = len(values) > 1 and len(set(values)) == 1
        linears = [linear_of(value) for value in values]
        if not shared and all(linear is not None for linear in linears):
            self._linears([linear for linear in linears if linear is not None])
        elif shared or any(node is None for node in nodes):
            self.inputs.append(values)
        else:
            self._nodes([node for node in nodes if node is not None], values)

    def _linears(self, linears: list[Linear]) -> None:
        first, *others = linears
        for other in others:
            if other.sizes != first.sizes or other.transposed != first.transposed:
                found = [f"{_name(each)} {list(each.sizes)}" for each in (first, other)]
                raise NotExpertsError(
                    f"its experts have weights of other shapes: {', '.join(found)}"
                )
            if (other.bias is None) != (first.bias is None):
                raise NotExpertsError("some of its experts have a bias, some have none")
        read = tuple(linear.x for linear in linears)
        if not first.entry:
            self.visit(read)
        elif read not in self.inputs:
            self.inputs.append(read)
        node = first.output.producer()
        assert node is not None
        self.steps.append(Step(node, tuple(linears)))

    def _nodes(self, nodes: list[ir.Node], values: tuple[ir.Value, ...]) -> None:
        first = nodes[0]
        kinds = list(dict.fromkeys(node.op_type for node in nodes))
        if len(kinds) > 1:
            raise NotExpertsError(
                f"its experts have different activations: {kinds[0]} and {kinds[1]}"
            )
        if not row_wise(first, self.rank):
            self.inputs.append(values)
            return
        if len({_said(node) for node in nodes}) > 1:
            raise NotExpertsError(f"its experts' {first.op_type} have different attributes")
        if len({len(node.inputs) for node in nodes}) > 1:
            raise NotExpertsError("its experts are not wired alike")
        for read in zip(*(node.inputs for node in nodes), strict=True):
            present = tuple(value for value in read if value is not None)
            if len(present) == len(read):
                self.visit(present)
            elif present:
                raise NotExpertsError("its experts are not wired alike")
        if all(step.node is not first for step in self.steps):
            self.steps.append(Step(first))


def _name(linear: Linear) -> str:
    node = linear.output.producer()
    return "" if node is None else str(node.name)


def _said(node: ir.Node) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(each.value)) for name, each in node.attributes.items()))


def _one_constant(values: tuple[ir.Value, ...]) -> bool:
    """Whether a value is the same constant for all experts.

    Raises:
        NotExpertsError: If it is a constant of each expert.
    """
    tensors = [constant_of(value) for value in values]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(values):
        return False
    first = known[0]
    for other in known[1:]:
        if other is first:
            continue
        if first.size > _LARGE or not np.array_equal(first.numpy(), other.numpy()):
            raise NotExpertsError("its experts have constants of their own beside their weights")
    return True
