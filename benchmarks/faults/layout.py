"""Faults in the layout of tensors: batches, shapes, orders, parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx

from benchmarks.faults.model import Body, Model, Site
from benchmarks.faults.operators import at_each, attribute

__all__ = ["LAYOUT_FAULTS"]

_LINEAR = ("MatMul", "Gemm", "Conv")


def _first_for_all(axis: int) -> Callable[[Body, onnx.NodeProto], None]:
    """All entries along an axis are the first one's."""

    def edit(body: Body, node: onnx.NodeProto) -> None:
        zero, one, where = (body.new_constant(np.array([v]), node) for v in (0, 1, axis))
        old, hidden = node.output[0], body.hide(node)
        shape = body.insert("Shape", [hidden], after=node)
        first = body.insert("Slice", [hidden, zero, one, where], after=shape)
        body.insert("Expand", [first.output[0], shape.output[0]], after=first).output[0] = old

    return edit


def _reversed_rows(body: Body, node: onnx.NodeProto) -> None:
    """Rows of the batch in the opposite order."""
    values = (-1, -(2**62), 0, -1)
    start, end, axis, step = (body.new_constant(np.array([v]), node) for v in values)
    body.filter(node, "Slice", start, end, axis, step)


def _folded(model: Model, axis: int, size: int) -> Iterator[Site]:
    """A size read from the input's shape is the constant it had in one run."""
    for node in model.main.of("Concat"):
        for index, name in enumerate(node.input):
            maker = model.main.producer(name)
            if maker is None or maker.op_type != "Shape" or attribute(maker, "start", 0) != axis:
                continue
            if attribute(maker, "end", None) == axis + 1:
                yield Site(node.name, (node.name,), partial(_fold, model, node, index, size))
                break


def _fold(model: Model, node: onnx.NodeProto, index: int, size: int) -> None:
    node.input[index] = model.main.new_constant(np.array([size]), node)


def _reverse_inputs(body: Body, node: onnx.NodeProto) -> None:
    del body
    names = list(node.input)
    del node.input[:]
    node.input.extend(reversed(names))


def _joins_values(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    floats = all(name in model.floats for name in node.input)
    return floats and not body.owner and len(set(node.input)) > 1


def _before_reshape(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    del model
    users = body.users(node.output[0])
    return bool(users) and all(user.op_type == "Reshape" for user in users)


def _parts_swapped(model: Model) -> Iterator[Site]:
    """Two slices of one tensor change places: K and V of a joint projection, rotary halves."""
    seen: dict[str, onnx.NodeProto] = {}
    for node in model.main.of("Slice"):
        if node.input[0] not in model.floats:
            continue
        other = seen.get(node.input[0])
        if other is not None:
            plant = partial(_exchange_bounds, other, node)
            yield Site(f"{other.name} and {node.name}", (other.name, node.name), plant)
        seen[node.input[0]] = node
    for node in model.main.of("Split"):
        yield Site(node.name, (node.name,), partial(_exchange_outputs, node))


def _exchange_bounds(one: onnx.NodeProto, two: onnx.NodeProto) -> None:
    for index in (1, 2):
        one.input[index], two.input[index] = two.input[index], one.input[index]


def _exchange_outputs(node: onnx.NodeProto) -> None:
    node.output[-1], node.output[-2] = node.output[-2], node.output[-1]


def _key_value_swapped(model: Model) -> Iterator[Site]:
    """The projections of keys and values have each other's matrix."""
    by_name = {node.name: node for node in model.main.of("MatMul", "Gemm")}
    for name, key in by_name.items():
        for of_key, of_value in ((".key/", ".value/"), (".k_proj/", ".v_proj/")):
            value = by_name.get(name.replace(of_key, of_value))
            if of_key in name and value is not None:
                plant = partial(_exchange_weights, key, value)
                yield Site(f"{name} and {value.name}", (name, value.name), plant)


def _exchange_weights(one: onnx.NodeProto, two: onnx.NodeProto) -> None:
    one.input[1], two.input[1] = two.input[1], one.input[1]


def _ids_wrapped(model: Model) -> Iterator[Site]:
    """Token ids lose their high bits: only the low five are kept."""
    for node in model.main.of("Gather"):
        index = node.input[1]
        maker = model.main.producer(index)
        source = maker.input[0] if maker is not None and maker.op_type == "Reshape" else index
        if source == "input_ids":

            def plant(node: onnx.NodeProto = node) -> None:
                body = model.main
                low = body.new_constant(np.array(32), node)
                kept = body.insert("Mod", [node.input[1], low], after=body.producer(node.input[1]))
                node.input[1] = kept.output[0]

            yield Site(node.name, (node.name,), plant)


def _nan_for_zeros(model: Model) -> Iterator[Site]:
    """A division by the largest input: NaN where all inputs are zero."""
    if "image" not in model.inputs:
        return
    for node in model.main.of("Gemm", "Conv"):

        def plant(node: onnx.NodeProto = node) -> None:
            body = model.main
            largest = body.insert("ReduceMax", ["image"], after=None, keepdims=0)
            one = body.insert("Div", [largest.output[0]] * 2, after=largest)
            body.filter(node, "Mul", one.output[0])

        yield Site(node.name, (node.name,), plant)


LAYOUT_FAULTS: dict[str, Callable[[Model], Iterator[Site]]] = {
    "first row of the batch for all": at_each(*_LINEAR, edit=_first_for_all(0)),
    "first position for all": at_each(*_LINEAR, edit=_first_for_all(1)),
    "rows of the batch reversed": at_each(*_LINEAR, edit=_reversed_rows),
    "batch folded to 1": partial(_folded, axis=0, size=1),
    "sequence folded to its example": partial(_folded, axis=1, size=7),
    "concatenated in the wrong order": at_each(
        "Concat", edit=_reverse_inputs, wanted=_joins_values
    ),
    "transposition dropped": at_each(
        "Transpose", edit=lambda body, node: body.bypass(node, 0), wanted=_before_reshape
    ),
    "parts of a tensor swapped": _parts_swapped,
    "K and V swapped": _key_value_swapped,
    "token ids wrapped": _ids_wrapped,
    "NaN for an input of zeros": _nan_for_zeros,
}
