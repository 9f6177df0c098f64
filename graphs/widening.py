"""A graph in half precision as float32 would compute it, and what half precision does to constants.

Rounding of half precision hides small defects of a graph. The same file computed in float32 has
its weights and constants as they ship and none of that rounding, and it runs where half precision
has no kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.float_types import change_constants, change_types
from graphs.inlining import inline_functions
from graphs.tensors import nodes_of, values_of

__all__ = ["round_constants", "widen"]

_HALVES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_LARGEST = {"float16": 65504.0, "bfloat16": 2.0**128 - 2.0**120}
_NUMPY: dict[str, npt.DTypeLike] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

_Array = npt.NDArray[Any]


def widen(src: Path, out: Path) -> None:
    """Write the graph of ``src`` with everything in half precision, casts included, in float32.

    Raises:
        GraphError: If the model cannot be read or written.
    """
    model = _flat(src)
    for node in nodes_of(model):
        change_types(node, _HALVES, ir.DataType.FLOAT)
    _convert(model, _HALVES, lambda array: array.astype(np.float32))
    for value in values_of(model):
        if value.dtype in _HALVES:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    store.save(model, out)


def round_constants(src: Path, out: Path, precision: Literal["float16", "bfloat16"]) -> None:
    """Write the float32 graph of ``src`` with weights and constants rounded to ``precision``.

    Raises:
        GraphError: If the model cannot be read or written.
    """
    half, model = _NUMPY[precision], _flat(src)

    largest = _LARGEST[precision]

    def rounded(array: _Array) -> _Array:
        # What is too large for float16 becomes infinite there, and its largest value in an export.
        finite = np.isfinite(array)
        clipped = np.where(finite, np.clip(array, -largest, largest), array)
        wide: _Array = clipped.astype(half).astype(np.float32)
        return wide

    _convert(model, {ir.DataType.FLOAT}, rounded)
    store.save(model, out)


def _flat(src: Path) -> ir.Model:
    model = store.load(src)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    inline_functions(model)
    return model


def _convert(model: ir.Model, dtypes: set[ir.DataType], change: Callable[[_Array], _Array]) -> None:
    """Change weights of ``dtypes``, one at a time when they are written, and constants."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in dtypes:
            value.const_value = ir.LazyTensor(
                partial(_changed, tensor, change),
                dtype=ir.DataType.FLOAT,
                shape=ir.Shape(tensor.shape.numpy()),
                name=tensor.name,
            )
    for node in nodes_of(model):
        change_constants(node, dtypes, change)


def _changed(tensor: ir.TensorProtocol, change: Callable[[_Array], _Array]) -> ir.TensorProtocol:
    return ir.tensor(change(tensor.numpy()), name=tensor.name)
