"""Faults in single operators: another function, another axis, coarser numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.faults.model import Body, Model, Site

__all__ = ["OPERATOR_FAULTS", "at_each", "set_attribute"]

Edit = Callable[[Body, onnx.NodeProto], None]
Wanted = Callable[[Model, Body, onnx.NodeProto], bool]


def _any(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    del model, body, node
    return True


def at_each(*ops: str, edit: Edit, wanted: Wanted = _any) -> Callable[[Model], Iterator[Site]]:
    """A fault that edits one node of these operators."""

    def sites(model: Model) -> Iterator[Site]:
        for body in model.bodies:
            for node in body.of(*ops):
                if wanted(model, body, node):
                    label = body.label(node)
                    plant = partial(edit, body, node)
                    yield Site(label, (body.owner or label, label), plant)

    return sites


def set_attribute(node: onnx.NodeProto, **values: Any) -> None:
    """Replace attributes of a node."""
    kept = [a for a in node.attribute if a.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node."""
    found = [a for a in node.attribute if a.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def _become(op: str, **attributes: Any) -> Edit:
    def edit(body: Body, node: onnx.NodeProto) -> None:
        del body
        node.op_type = op
        if attributes:
            set_attribute(node, **attributes)

    return edit


def _with(**attributes: Any) -> Edit:
    def edit(body: Body, node: onnx.NodeProto) -> None:
        del body
        set_attribute(node, **attributes)

    return edit


def _bypass(index: int) -> Edit:
    return lambda body, node: body.bypass(node, index)


def _behind(op: str, **attributes: Any) -> Edit:
    return lambda body, node: body.filter(node, op, **attributes)


def _round_trip(dtype: int) -> Edit:
    def edit(body: Body, node: onnx.NodeProto) -> None:
        old, hidden = node.output[0], body.hide(node)
        narrow = body.insert("Cast", [hidden], after=node, to=dtype)
        body.insert("Cast", narrow.output[:], after=narrow, to=TensorProto.FLOAT).output[0] = old

    return edit


def _scaled_constant(factor: float) -> Edit:
    """One constant input of a node is multiplied; other readers of the constant keep it."""

    def edit(body: Body, node: onnx.NodeProto) -> None:
        index = next(i for i, n in enumerate(node.input) if _scalar(body, n))
        value = body.constant(node.input[index])
        assert value is not None
        node.input[index] = body.new_constant((value * factor).astype(value.dtype), node)

    return edit


def _scalar(body: Body, name: str) -> bool:
    value = body.constant(name)
    return value is not None and value.size == 1 and value.dtype.kind == "f"


def _has_scalar(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    del model
    return any(_scalar(body, name) for name in node.input)


def _small_scalar(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    """An epsilon: at most a thousandth."""
    del model
    found = [body.constant(name) for name in node.input if _scalar(body, name)]
    return any(value is not None and 0 < float(value.item()) < 1e-3 for value in found)


def _single(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    """Only where numbers are float32 can they be rounded to something coarser."""
    del body, node
    return not model.half


def _shift_axis(body: Body, node: onnx.NodeProto) -> None:
    axes = body.constant(node.input[1])
    assert axes is not None
    node.input[1] = body.new_constant(axes - 1 if (axes < 0).all() else axes + 1, node)


def _keeps_dims(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    del model
    known = len(node.input) > 1 and body.constant(node.input[1]) is not None
    return known and attribute(node, "keepdims", 1) == 1


def _epsilon(body: Body, node: onnx.NodeProto) -> None:
    del body
    set_attribute(node, epsilon=attribute(node, "epsilon", 1e-5) * 10)


def _other_gelu(body: Body, node: onnx.NodeProto) -> None:
    del body
    exact = attribute(node, "approximate", b"none") == b"none"
    set_attribute(node, approximate="tanh" if exact else "none")


def _moved_padding(body: Body, node: onnx.NodeProto) -> None:
    del body
    pads = attribute(node, "pads", [1, 1, 1, 1])
    set_attribute(node, pads=[pads[0] + 1, pads[1], pads[2] - 1, pads[3]])


def _clip(body: Body, node: onnx.NodeProto) -> None:
    low, high = (body.new_constant(np.float32(v), node) for v in (-2.0, 2.0))
    body.filter(node, "Clip", low, high)


def _is_output(model: Model, body: Body, node: onnx.NodeProto) -> bool:
    return not body.owner and node.output[0] in model.outputs


def _multiply(factor: float) -> Edit:
    def edit(body: Body, node: onnx.NodeProto) -> None:
        body.filter(node, "Mul", body.new_constant(np.float32(factor), node))

    return edit


def _bare(node: onnx.NodeProto) -> onnx.NodeProto:
    del node.attribute[:]
    return node


def _average(body: Body, node: onnx.NodeProto) -> None:
    del body
    kept = [a for a in node.attribute if a.name not in {"storage_order", "dilations"}]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.op_type = "AveragePool"


_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax")
_INTERPOLATIONS = ("LinearInterpolation", "LogLinearInterpolation")
_EVERY_OUTPUT = ("MatMul", "Gemm", "Add", "Concat", "Cast", *_INTERPOLATIONS)
_HALF, _BFLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16

OPERATOR_FAULTS: dict[str, Callable[[Model], Iterator[Site]]] = {
    "wrong softmax axis": at_each("Softmax", edit=_with(axis=-2)),
    "softmax twice": at_each("Softmax", edit=_behind("Softmax", axis=-1)),
    "wrong epsilon in a layer norm": at_each("LayerNormalization", edit=_epsilon),
    "wrong epsilon": at_each("Add", edit=_scaled_constant(10.0), wanted=_small_scalar),
    "norm dropped": at_each("LayerNormalization", edit=_bypass(0)),
    "float16 in one norm": at_each(
        "LayerNormalization", "ReduceMean", edit=_round_trip(_HALF), wanted=_single
    ),
    "float16 in one product": at_each(
        "MatMul", "Gemm", "Conv", edit=_round_trip(_HALF), wanted=_single
    ),
    "bfloat16 in one product": at_each(
        "MatMul", "Gemm", "Conv", edit=_round_trip(_BFLOAT), wanted=_single
    ),
    "tanh for erf in GELU": at_each("Gelu", edit=_other_gelu),
    "ReLU for GELU": at_each("Gelu", edit=lambda b, n: _become("Relu")(b, _bare(n))),
    "hard sigmoid for sigmoid": at_each(
        "Sigmoid", edit=_become("HardSigmoid", alpha=1 / 6, beta=0.5)
    ),
    "activation dropped": at_each("Relu", "Gelu", "Tanh", "Sigmoid", edit=_bypass(0)),
    "sign flipped": at_each("MatMul", "Gemm", "Conv", edit=_behind("Neg")),
    "negation dropped": at_each("Neg", edit=_bypass(0)),
    "log dropped": at_each("Log", edit=_bypass(0)),
    "exp dropped": at_each("Exp", edit=_bypass(0)),
    "scale wrong by 10 %": at_each("Mul", edit=_scaled_constant(1.1), wanted=_has_scalar),
    "renormalisation dropped": at_each("Div", "Sub", edit=_bypass(0)),
    "mean for sum": at_each("ReduceSum", edit=_become("ReduceMean")),
    "sum for mean": at_each("ReduceMean", edit=_become("ReduceSum")),
    "wrong reduction axis": at_each(*_REDUCTIONS, edit=_shift_axis, wanted=_keeps_dims),
    "reduced axis not kept": at_each(*_REDUCTIONS, edit=_with(keepdims=0), wanted=_keeps_dims),
    "average for maximum pool": at_each("MaxPool", edit=_average),
    "convolution moved by a pixel": at_each("Conv", edit=_moved_padding),
    "sine for cosine": at_each("Cos", edit=_become("Sin")),
    "output clipped": at_each(*_EVERY_OUTPUT, edit=_clip, wanted=_is_output),
    "output scaled by 0.1 %": at_each(*_EVERY_OUTPUT, edit=_multiply(1.001), wanted=_is_output),
}
