"""What single operators must keep; one function for each rule of ``graphs.tensorrt.rules``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphs.tensorrt.operators import STORED
from graphs.tensorrt.sites import Site, constant, dims, type_name
from graphs.tensorrt.spans import words

__all__ = ["NODE_CHECKS", "Check"]

Check = Callable[[Site], Iterator[str]]
"""Yields what was found where a rule is broken, and nothing where it is kept."""

_MOST_K = 3840
_MODES = frozenset(
    {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
)


def _text(site: Site, name: str, default: str) -> str:
    return str(site.node.attributes.get_string(name, default))


def _int(site: Site, name: str, default: int) -> int:
    return int(site.node.attributes.get_int(name, default) or 0)


def _array(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def _cast_type(site: Site) -> Iterator[str]:
    kind = ir.DataType(_int(site, "to", 1)).name
    if kind not in STORED:
        yield f"a cast to {kind.lower()}"


def _types_differ(site: Site) -> Iterator[str]:
    first = 1 if site.node.op_type == "Where" else 0
    kinds = [type_name(value) for value in site.node.inputs[first:] if value is not None]
    if len(set(filter(None, kinds))) > 1:
        yield " and ".join(dict.fromkeys(kind.lower() for kind in kinds if kind))


def _reduction(site: Site) -> Iterator[str]:
    reduction = _text(site, "reduction", "none")
    if reduction != "none":
        yield f"reduction {reduction!r}"


def _topk(site: Site) -> Iterator[str]:
    k = _array(site.input(1))
    if k is not None and k.size == 1 and int(k.ravel()[0]) > _MOST_K:
        yield f"k {int(k.ravel()[0])}"


def _axes(site: Site) -> Iterator[str]:
    if not constant(site.input(1)):
        yield f"axes that are computed from {site.node.inputs[1].name!r}"  # type: ignore[union-attr]


def _eyelike(site: Site) -> Iterator[str]:
    shape = dims(site.input(0))
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        yield f"an input of shape {_shown(shape)}"


def _hardmax(site: Site) -> Iterator[str]:
    shape = dims(site.input(0))
    axis = _int(site, "axis", -1)
    if shape is not None and not isinstance(shape[axis], int):
        yield f"axis {axis} of an input of shape {_shown(shape)}"


def _shown(shape: tuple[int | str | None, ...] | None) -> str:
    if shape is None:
        return "[…]"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _onehot(site: Site) -> Iterator[str]:
    if not constant(site.input(1)):
        yield f"a depth that is computed: {site.node.inputs[1].name!r}"  # type: ignore[union-attr]


def _dilations(site: Site) -> Iterator[str]:
    dilations = list(site.node.attributes.get_ints("dilations", ()) or ())
    if any(size != 1 for size in dilations):
        yield f"dilations {dilations}"


def _first_output(site: Site) -> Iterator[str]:
    if site.used_outputs() > 1:
        yield f"{site.used_outputs()} outputs"


def _training(site: Site) -> Iterator[str]:
    if site.node.op_type == "BatchNormalization":
        if _int(site, "training_mode", 0):
            yield "training_mode 1"
        return
    mode = site.input(2)
    if mode is None:
        return
    given = _array(mode)
    if given is None:
        yield f"a training_mode that is computed: {mode.name!r}"
    elif given.any():
        yield "training_mode true"


def _resize(site: Site) -> Iterator[str]:
    mode = _text(site, "coordinate_transformation_mode", "half_pixel")
    nearest = _text(site, "nearest_mode", "round_prefer_floor")
    aspect = _text(site, "keep_aspect_ratio_policy", "stretch")
    if mode not in _MODES:
        yield f"coordinate_transformation_mode {mode!r}"
    if mode == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        yield f"nearest_mode {nearest!r} with {mode}"
    if _int(site, "antialias", 0):
        yield "antialias 1"
    if aspect != "stretch":
        yield f"keep_aspect_ratio_policy {aspect!r}"


def _lstm_forget(site: Site) -> Iterator[str]:
    if _int(site, "input_forget", 0):
        yield "input_forget 1"


def _activations(site: Site) -> Iterator[str]:
    given = list(site.node.attributes.get_strings("activations", ()) or ())
    half = len(given) // 2
    two_ways = _text(site, "direction", "forward") == "bidirectional"
    if two_ways and given[:half] != given[half:]:
        yield "activations " + ", ".join(map(str, given))


def _einsum(site: Site) -> Iterator[str]:
    equation = _text(site, "equation", "")
    if any(letter not in "abcdefghijklmnopqrstuvwxyz->., " for letter in equation):
        yield f"equation {equation!r}"


def _zero_point(site: Site) -> Iterator[str]:
    point = site.input(2)
    given = _array(point)
    if given is not None and np.any(given.astype(np.float32) != 0):
        yield f"zero point {given.ravel()[0]}"


def _constant_kind(site: Site) -> Iterator[str]:
    for name in ("sparse_value", "value_string", "value_strings"):
        if name in site.node.attributes:
            yield f"attribute {name}"


def _random_type(site: Site) -> Iterator[str]:
    kind = ir.DataType(_int(site, "dtype", 1)).name
    if kind not in {"FLOAT", "FLOAT16"}:
        yield f"dtype {kind.lower()}"


def _norm_order(site: Site) -> Iterator[str]:
    order = _int(site, "p", 2)
    if order not in {1, 2}:
        yield f"p {order}"


_REDUCES = words(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)
_SAME_TYPES = words(
    "Add Sub Mul Div Max Min Mod Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Concat "
    "MatMul Gemm Where"
)
_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})

NODE_CHECKS: Mapping[str, tuple[frozenset[str], Check]] = {
    "cast-type": (frozenset({"Cast"}), _cast_type),
    "types-differ": (_SAME_TYPES, _types_differ),
    "scatternd-reduction": (frozenset({"ScatterND"}), _reduction),
    "scatterelements-reduction": (frozenset({"ScatterElements"}), _reduction),
    "topk-k": (frozenset({"TopK"}), _topk),
    "reduce-axes": (_REDUCES, _axes),
    "unsqueeze-axes": (frozenset({"Unsqueeze"}), _axes),
    "eyelike-shape": (frozenset({"EyeLike"}), _eyelike),
    "hardmax-size": (frozenset({"Hardmax"}), _hardmax),
    "onehot-depth": (frozenset({"OneHot"}), _onehot),
    "pool-dilations": (frozenset({"MaxPool", "AveragePool", "LpPool"}), _dilations),
    "pool-indices": (frozenset({"MaxPool"}), _first_output),
    "normalization-outputs": (frozenset({"LayerNormalization"}), _first_output),
    "training": (frozenset({"BatchNormalization", "Dropout"}), _training),
    "resize-mode": (frozenset({"Resize"}), _resize),
    "lstm-forget": (frozenset({"LSTM"}), _lstm_forget),
    "rnn-activations": (frozenset({"GRU", "LSTM", "RNN"}), _activations),
    "einsum-letters": (frozenset({"Einsum"}), _einsum),
    "zero-point": (frozenset({"QuantizeLinear", "DequantizeLinear"}), _zero_point),
    "constant-kind": (frozenset({"Constant"}), _constant_kind),
    "random-type": (_RANDOM, _random_type),
    "norm-order": (frozenset({"LpNormalization", "LpPool"}), _norm_order),
}
"""By rule: the operators it is about, and the check."""
