"""Faults in how members and experts are mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx

from benchmarks.faults.model import Array, Body, Model, Site
from benchmarks.faults.operators import at_each

__all__ = ["MIXING_FAULTS"]


def _stacks(model: Model) -> Iterator[onnx.NodeProto]:
    """Where members, or experts, are stacked in front of their combination."""
    for node in model.main.of("Concat"):
        if node.name.endswith("interpolation/stack") or ".mixture/" in node.name:
            yield node


def _swapped(model: Model, where: str) -> Iterator[Site]:
    for node in _stacks(model):
        for index in range(len(node.input) if where in node.name else 0):
            other = (index + 1) % len(node.input)
            plant = partial(_exchange, node, index, other)
            yield Site(f"{node.name} {index} and {other}", (node.name,), plant)


def _exchange(node: onnx.NodeProto, one: int, two: int) -> None:
    node.input[one], node.input[two] = node.input[two], node.input[one]


def _repeated(model: Model, where: str) -> Iterator[Site]:
    """One member's output is also taken for its neighbour's."""
    for node in _stacks(model):
        for index in range(len(node.input) if where in node.name else 0):
            plant = partial(_copy, node, index, (index + 1) % len(node.input))
            yield Site(f"{node.name} {index}", (node.name,), plant)


def _copy(node: onnx.NodeProto, source: int, target: int) -> None:
    node.input[target] = node.input[source]


def _weights(change: Callable[[Array], Iterator[Array]]) -> Callable[[Model], Iterator[Site]]:
    def sites(model: Model) -> Iterator[Site]:
        for name in [name for name in model.weights if name.endswith("interpolation/weights")]:
            for index, changed in enumerate(change(model.weights[name])):
                plant = partial(model.set_weight, name, changed.astype(np.float32))
                yield Site(f"{name} {index}", model.readers(name), plant)

    return sites


def _off(factor: float) -> Callable[[Array], Iterator[Array]]:
    def change(weights: Array) -> Iterator[Array]:
        for index in range(len(weights)):
            yield weights * np.where(np.arange(len(weights)) == index, factor, 1.0)

    return change


def _fewer(body: Body, node: onnx.NodeProto) -> None:
    count = body.constant(node.input[1])
    assert count is not None
    node.input[1] = body.new_constant(count - 1, node)


def _other_tie(body: Body, node: onnx.NodeProto) -> None:
    """Of equal values the last is taken: the operator sees them in the opposite order."""
    numbers = (-1, -(2**62), -1, -1)
    start, end, axis, step = (body.new_constant(np.array([v]), node) for v in numbers)
    source = body.producer(node.input[0])
    backward = body.insert("Slice", [node.input[0], start, end, axis, step], after=source)
    shape = body.insert("Shape", node.input[:1], after=backward, start=-1)
    last = body.insert(
        "Sub", [shape.output[0], body.new_constant(np.array([1]), node)], after=shape
    )
    node.input[0] = backward.output[0]
    old, hidden = node.output[1], body.hide(node, 1)
    body.insert("Sub", [last.output[0], hidden], after=node).output[0] = old


def _weights_exchanged(body: Body, node: onnx.NodeProto) -> None:
    """Each token's best expert has the weight of its second."""
    numbers = (-1, -(2**62), -1, -1)
    start, end, axis, step = (body.new_constant(np.array([v]), node) for v in numbers)
    source = body.producer(node.input[2])
    backward = body.insert("Slice", [node.input[2], start, end, axis, step], after=source)
    node.input[2] = backward.output[0]


MIXING_FAULTS: dict[str, Callable[[Model], Iterator[Site]]] = {
    "two members swapped": partial(_swapped, where="interpolation"),
    "wrong member for one": partial(_repeated, where="interpolation"),
    "interpolation weight off by 1 %": _weights(_off(1.01)),
    "interpolation weight off by 0.1 %": _weights(_off(1.001)),
    "interpolation weight dropped": _weights(_off(0.0)),
    "interpolation weights reversed": _weights(lambda w: iter([w[::-1]])),
    "interpolation weights uniform": _weights(lambda w: iter([np.full(len(w), 1 / len(w))])),
    "experts swapped": partial(_swapped, where=".mixture/"),
    "one expert for another": partial(_repeated, where=".mixture/"),
    "one expert fewer": at_each("TopK", edit=_fewer),
    "tie broken the other way": at_each("TopK", edit=_other_tie),
    "routing weights exchanged": at_each("ScatterElements", edit=_weights_exchanged),
}
