"""Takes somebody else's ONNX file into the pipeline."""

from __future__ import annotations

from pathlib import Path

import graphs
from toolkit.artifacts import OnnxModel, TensorSpec
from toolkit.errors import ExportError

__all__ = ["adopt_onnx"]


def adopt_onnx(path: Path) -> OnnxModel:
    """Describe an ONNX file that was made elsewhere.

    Raises:
        graphs.GraphError: If it is not valid ONNX, or its external data is missing, truncated or
            outside its folder.
        ExportError: If a dimension of an input is dynamic but has no name to range it by.
    """
    found = graphs.describe(path)
    return OnnxModel(
        path=path,
        inputs=tuple(_named(value, path) for value in found.inputs),
        outputs=tuple(_open(value) for value in found.outputs),
        opset=found.opset,
    )


def _named(value: graphs.TensorInfo, path: Path) -> TensorSpec:
    if value.shape is None or None in value.shape:
        raise ExportError(
            f"{path.name}: input {value} has dynamic dimensions without names",
            hint="name them with onnx.tools.update_model_dims.update_inputs_outputs_dims",
        )
    return _open(value)


def _open(value: graphs.TensorInfo) -> TensorSpec:
    """An output's unnamed dimensions are called ``?``; nothing needs their range."""
    shape = tuple("?" if dim is None else dim for dim in value.shape or ())
    return TensorSpec(value.name, value.dtype, shape)
