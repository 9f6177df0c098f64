"""Faults in how a transformer is put together: masks, positions, caches, layers, residuals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import onnx

from benchmarks.faults.model import Body, Model, Site
from benchmarks.faults.operators import at_each

__all__ = ["STRUCTURE_FAULTS"]

_LAYER = re.compile(r"\.(?:layers?|h|blocks)\.(\d+)(?:[./]|$)")
_PAST = "past_key_values."


def _site(node: onnx.NodeProto, what: str, plant: object) -> Site:
    assert callable(plant)
    return Site(f"{node.name}{what}", (node.name,), plant)


def _masked(model: Model) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Nodes that apply a mask in front of a softmax, and their input with the scores."""
    for softmax in model.main.of("Softmax"):
        node = model.main.producer(softmax.input[0])
        if node is not None and node.op_type == "Add" and node.input[1] not in model.weights:
            yield node, 0
        elif node is not None and node.op_type == "Where":
            yield node, 2


def _mask_ignored(model: Model) -> Iterator[Site]:
    for node, scores in _masked(model):
        yield _site(node, "", partial(model.main.bypass, node, scores))


def _mask_twice(model: Model) -> Iterator[Site]:
    for node, _ in _masked(model):
        if node.op_type == "Add":
            yield _site(node, "", partial(model.main.filter, node, "Add", node.input[1]))


def _half_masks(model: Model, *, padding: bool) -> Iterator[Site]:
    """Where the padding mask (gathered from the input) meets the causal one, one is left out."""
    for node in model.main.of("And"):
        makers = [model.main.producer(name) for name in node.input]
        gathered = [maker is not None and maker.op_type == "GatherND" for maker in makers]
        if any(gathered):
            kept = gathered.index(not padding)
            yield _site(node, "", partial(model.main.bypass, node, kept))


def _compare_strictly(body: Body, node: onnx.NodeProto) -> None:
    if node.op_type != "Trilu":
        node.op_type = node.op_type.removesuffix("OrEqual")
        return
    offset = body.constant(node.input[1])
    assert offset is not None
    node.input[1] = body.new_constant(offset + 1, node)


def _positions(model: Model) -> Iterator[tuple[onnx.NodeProto, int, str]]:
    """Readers of positions, which input that is, and its type."""
    for node in model.main.of("Gather"):
        if re.search(r"position|wpe", node.input[0]) and node.input[0] in model.weights:
            yield node, 1, "int64"
    for node in model.main.of("Mul"):
        if node.input[1].endswith("inv_freq"):
            yield node, 0, "float32"


def _position_op(model: Model, op: str, value: int) -> Iterator[Site]:
    for node, index, dtype in _positions(model):

        def plant(node: onnx.NodeProto = node, index: int = index, dtype: str = dtype) -> None:
            source = node.input[index]
            constant = model.main.new_constant(np.asarray(value, dtype), node)
            maker = model.main.producer(source)
            node.input[index] = model.main.insert(op, [source, constant], after=maker).output[0]

        yield _site(node, "", plant)


def _rotary_base(model: Model) -> Iterator[Site]:
    """The base is twice as large."""
    for name, weight in list(model.weights.items()):
        if name.endswith("inv_freq"):
            other = weight ** (np.log(2e4) / np.log(1e4))
            plant = partial(model.set_weight, name, other.astype(weight.dtype))
            yield Site(name, model.readers(name), plant)


def _appended(model: Model) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in model.main.of("Concat"):
        if node.input[0].startswith(_PAST):
            yield node, node.input[0]


def _cache_of_another_layer(model: Model) -> Iterator[Site]:
    nodes = list(_appended(model))
    for node, past in nodes:
        kind = past.rpartition(".")[2]
        other = next(o for _, o in reversed(nodes) if o.endswith(kind) and o != past)
        yield _site(node, f" reads {other}", partial(_set_input, node, 0, other))


def _set_input(node: onnx.NodeProto, index: int, name: str) -> None:
    node.input[index] = name


def _stale_slot(model: Model) -> Iterator[Site]:
    """The cache lies one slot off: the oldest entry is where the newest should be."""
    for node, past in _appended(model):

        def plant(node: onnx.NodeProto = node, past: str = past) -> None:
            body = model.main
            zero, one, end, axis = (
                body.new_constant(np.array([v]), node) for v in (0, 1, 2**62, 2)
            )
            first = body.insert("Slice", [past, zero, one, axis], after=None)
            rest = body.insert("Slice", [past, one, end, axis], after=None)
            joined = body.insert("Concat", [rest.output[0], first.output[0]], after=first, axis=2)
            node.input[0] = joined.output[0]

        yield _site(node, "", plant)


def _not_written(model: Model) -> Iterator[Site]:
    """The cache that goes out holds zeros for the new positions."""
    for node, _ in _appended(model):

        def plant(node: onnx.NodeProto = node) -> None:
            body, new = model.main, node.input[1]
            nothing = body.insert("Sub", [new, new], after=body.producer(new))
            stale = body.insert("Concat", [node.input[0], nothing.output[0]], after=node, axis=-2)
            name = node.output[0]
            hidden = body.hide(node)
            for user in body.users(name):
                user.input[list(user.input).index(name)] = hidden
            stale.output[0] = name

        yield _site(node, "", plant)


def _outputs_swapped(model: Model) -> Iterator[Site]:
    makers = [n for n in model.main.nodes if n.output[0] in model.outputs and n.op_type == "Concat"]
    for one, two in zip(makers, makers[2:], strict=False):

        def plant(one: onnx.NodeProto = one, two: onnx.NodeProto = two) -> None:
            names = one.output[0], two.output[0]
            hidden = model.main.hide(one), model.main.hide(two)
            for old, new in zip(names, hidden, strict=True):
                for user in model.main.users(old):
                    user.input[list(user.input).index(old)] = new
            for node, name in zip((one, two), reversed(names), strict=True):
                model.main.insert("Identity", node.output[:], after=two).output[0] = name

        yield Site(f"{one.output[0]} and {two.output[0]}", (one.name, two.name), plant)


def _layers(model: Model) -> list[list[onnx.NodeProto]]:
    """The nodes of each layer by module path, in order."""
    found: dict[int, list[onnx.NodeProto]] = {}
    for node in model.main.nodes:
        match = _LAYER.search(node.name)
        if match:
            found.setdefault(int(match[1]), []).append(node)
    return [found[index] for index in sorted(found)]


def _layer_dropped(model: Model) -> Iterator[Site]:
    """What follows a layer reads what the layer before it gave."""
    layers = _layers(model)
    for before, layer in pairwise(layers):
        plant = partial(_instead, model, layer[-1], before[-1].output[0])
        yield _site(layer[-1], "", plant)


def _instead(model: Model, node: onnx.NodeProto, source: str) -> None:
    old = node.output[0]
    model.main.hide(node)
    model.main.insert("Identity", [source], after=node).output[0] = old


def _layer_twice(model: Model) -> Iterator[Site]:
    layers = _layers(model)
    for before, layer in pairwise(layers):
        plant = partial(_again, model, layer, before[-1].output[0])
        yield _site(layer[-1], "", plant)


def _again(model: Model, layer: list[onnx.NodeProto], stream: str) -> None:
    """Run a copy of the layer on the layer's own output."""
    old = layer[-1].output[0]
    renamed = {stream: model.main.hide(layer[-1])}
    after = layer[-1]
    for node in layer:
        outputs = [model.fresh() for _ in node.output]
        inputs = [renamed.get(name, name) for name in node.input]
        copied = model.main.insert(node.op_type, inputs, after=after)
        copied.attribute.extend(node.attribute)
        kept = [old] if node is layer[-1] else outputs
        renamed |= dict(zip(node.output, outputs, strict=True)) if node is not layer[-1] else {}
        del copied.output[:]
        copied.output.extend(kept)
        after = copied


def _residual_dropped(model: Model) -> Iterator[Site]:
    masks = {node.name for node, _ in _masked(model)}
    for node in model.main.of("Add"):
        computed = all(name in model.floats and name not in model.weights for name in node.input)
        if computed and node.name not in masks:
            for index in (0, 1):
                plant = partial(model.main.bypass, node, index)
                yield _site(node, f" without input {1 - index}", plant)


def _is_zero(body: Body, name: str) -> bool:
    value = body.constant(name)
    return value is not None and value.size == 1 and not value.any()


def _last(body: Body, node: onnx.NodeProto) -> None:
    index = body.constant(node.input[1])
    assert index is not None
    node.input[1] = body.new_constant(index - 1, node)


STRUCTURE_FAULTS: dict[str, Callable[[Model], Iterator[Site]]] = {
    "mask ignored": _mask_ignored,
    "mask added twice": _mask_twice,
    "padding mask ignored": partial(_half_masks, padding=True),
    "causal mask removed": partial(_half_masks, padding=False),
    "mask off by one": at_each("LessOrEqual", "GreaterOrEqual", "Trilu", edit=_compare_strictly),
    "position off by one": partial(_position_op, op="Add", value=1),
    "sequence capped": partial(_position_op, op="Min", value=8),
    "wrong rotary base": _rotary_base,
    "cache of another layer": _cache_of_another_layer,
    "stale cache slot": _stale_slot,
    "cache not written": _not_written,
    "cache outputs swapped": _outputs_swapped,
    "layer dropped": _layer_dropped,
    "layer applied twice": _layer_twice,
    "residual dropped": _residual_dropped,
    "last token for the first": at_each(
        "Gather",
        edit=_last,
        wanted=lambda m, b, n: n.input[0] in m.floats and _is_zero(b, n.input[1]),
    ),
}
