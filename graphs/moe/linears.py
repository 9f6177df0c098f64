"""Linear layers in a graph of anyone's: of one expert, or of all experts in one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphs.moe.row_wise import constant_of

__all__ = ["Linear", "NotExpertsError", "linear_of"]


class NotExpertsError(Exception):
    """Why what looks like a layer of experts is left alone; becomes the reason of a near miss."""


@dataclass(frozen=True)
class Linear:
    """``y = weight @ x + bias``, of one expert or of all.

    Attributes:
        output: y, [.., U].
        x: What it reads.
        weight: The constant: [U, D] or [E, U, D], the last two swapped if ``transposed``.
        transposed: Whether the weight lies as [D, U] or [E, D, U].
        bias: The constant [U], or with a place for each expert; None without.
        axis: Where experts are in y; None for one expert.
        entry: Whether x is the same for all experts.
    """

    output: ir.Value
    x: ir.Value
    weight: ir.Value
    transposed: bool
    bias: ir.Value | None = None
    axis: int | None = None
    entry: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return _sizes(self.weight)

    @property
    def width(self) -> int:
        """U."""
        return self.sizes[-1 if self.transposed else -2]


def linear_of(value: ir.Value) -> Linear | None:
    """The linear layer that gives a value, with the bias added to it."""
    node = value.producer()
    if node is None or node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type != "Add":
        return _product(node)
    for place in (0, 1):
        product, bias = node.inputs[place], node.inputs[1 - place]
        if product is None or bias is None or len(product.uses()) != 1:
            continue
        found, tensor = _product_of(product), constant_of(bias)
        if found is not None and found.bias is None and tensor is not None:
            return _with_bias(found, bias, value)
    return None


def _with_bias(linear: Linear, bias: ir.Value, output: ir.Value) -> Linear | None:
    """None where the constant is no bias: one number, or the same for all experts."""
    sizes, rank = _sizes(bias), None if output.shape is None else len(output.shape)
    wanted = [linear.width]
    if linear.axis is not None:
        if rank is None:
            return None
        wanted = [1] * (rank - 1) + wanted
        wanted[linear.axis] = linear.sizes[0]
    padded = [1] * (len(wanted) - len(sizes)) + list(sizes)
    while len(padded) > len(wanted) and padded[0] == 1:
        padded = padded[1:]
    if padded != wanted:
        return None
    return Linear(
        output, linear.x, linear.weight, linear.transposed, bias, linear.axis, linear.entry
    )


def _product_of(value: ir.Value) -> Linear | None:
    node = value.producer()
    return None if node is None or node.op_type == "Add" else _product(node)


def _product(node: ir.Node) -> Linear | None:
    if node.op_type == "Gemm":
        return _gemm(node)
    if node.op_type == "MatMul":
        return _matmul(node)
    return _einsum(node) if node.op_type == "Einsum" else None


def _gemm(node: ir.Node) -> Linear | None:
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    weight, x = _weight(node.inputs[1], 2), node.inputs[0]
    if (
        factors != [1.0, 1.0]
        or node.attributes.get_int("transA", 0) != 0
        or not weight
        or x is None
    ):
        return None
    value, swapped = weight
    transposed = (node.attributes.get_int("transB", 0) == 0) != swapped
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    plain = Linear(node.outputs[0], x, value, transposed)
    if bias is None:
        return plain
    return None if constant_of(bias) is None else _with_bias(plain, bias, node.outputs[0])


def _matmul(node: ir.Node) -> Linear | None:
    x = node.inputs[0]
    single, batched = _weight(node.inputs[1], 2), _weight(node.inputs[1], 3)
    if x is None or not (single or batched):
        return None
    if single:
        return Linear(node.outputs[0], x, single[0], not single[1])
    assert batched
    value, swapped = batched
    shape = x.shape
    if shape is None or len(shape) > 3:
        return None
    entry = len(shape) < 3 or shape[0] == 1
    return Linear(node.outputs[0], x, value, not swapped, axis=0, entry=entry)


def _einsum(node: ir.Node) -> Linear | None:
    """``td,edu->teu`` and its likes: experts first in the weight, U last in y."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    if len(node.inputs) != 2 or equation.count("->") != 1 or "." in equation:
        return None
    left, out = equation.split("->")
    terms = left.split(",")
    for place in (0, 1):
        weight, x = _weight(node.inputs[place], 3), node.inputs[1 - place]
        if weight and x is not None and not weight[1]:
            return _spelled(node, x, weight[0], (terms[1 - place], terms[place], out))
    return None


def _spelled(
    node: ir.Node, x: ir.Value, weight: ir.Value, terms: tuple[str, str, str]
) -> Linear | None:
    read, (expert, *sides), out = terms[0], list(terms[1]), terms[2]
    summed = [letter for letter in sides if letter in read and letter not in out]
    kept = [letter for letter in sides if letter not in read and out.endswith(letter)]
    if len(summed) != 1 or len(kept) != 1 or expert not in out or not read.endswith(summed[0]):
        return None
    axis, entry = out.index(expert), expert not in read
    tokens = read[:-1].replace(expert, "")
    if out.replace(expert, "")[:-1] != tokens or not (entry or read.index(expert) == axis):
        return None
    return Linear(node.outputs[0], x, weight, sides[0] == summed[0], axis=axis, entry=entry)


def _weight(value: ir.Value | None, rank: int) -> tuple[ir.Value, bool] | None:
    """The constant of a rank behind a value, and whether its last two axes are swapped."""
    if value is None:
        return None
    if constant_of(value) is not None:
        return (value, False) if len(_sizes(value)) == rank else None
    node = value.producer()
    if node is None or node.op_type != "Transpose":
        return None
    perm: Sequence[int] = node.attributes.get_ints("perm", ())
    if list(perm) != [*range(rank - 2), rank - 1, rank - 2]:
        return None
    found = _weight(node.inputs[0], rank)
    return None if found is None else (found[0], not found[1])


def _sizes(value: ir.Value) -> tuple[int, ...]:
    tensor = constant_of(value)
    assert tensor is not None
    return tuple(int(size) for size in tensor.shape.numpy())
