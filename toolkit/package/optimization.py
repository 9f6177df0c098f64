"""What makes a model faster on a GPU: engines built on the server, captured launches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphs import Weights
from toolkit.artifacts import Shapes, span_of
from toolkit.errors import PackageError
from toolkit.package.artefact import Artefact
from toolkit.package.interface import Interface

if TYPE_CHECKING:
    from pathlib import Path

    from graphs import Description

__all__ = ["add_accelerator", "add_cuda_graphs"]

_WORKSPACE = 1 << 30
# What decides in the middle of a run what runs next, or how large it is: no fixed launches.
_UNCAPTURED = {"If", "Loop", "Scan", "NonZero", "Unique", "Compress", "NonMaxSuppression"}


def add_accelerator(config: Any, found: Description, graph: Path, shapes: Shapes) -> None:
    """Let ONNX Runtime build TensorRT engines of the graph when the server loads it.

    Precision is the graph's own, so that what runs is what was proven; shapes are its ranges.

    Raises:
        PackageError: If it has weights that this way cannot take.
    """
    dtypes = {np.dtype(array.dtype).name for array in Weights(graph).values()}
    if "bfloat16" in dtypes:
        raise PackageError(
            "the graph has bfloat16 weights, which ONNX Runtime's TensorRT in Triton does not take",
            hint="leave --accelerator out, or export in float16",
        )
    each = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    parameters = {
        "precision_mode": "FP16" if "float16" in dtypes else "FP32",
        "max_workspace_size_bytes": str(_WORKSPACE),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": f"/tmp/{config.name}_engines",  # noqa: S108  (on the server)
    }
    for place in ("min", "opt", "max"):
        sizes = _profile(found, shapes, place)
        if sizes:
            parameters[f"trt_profile_{place}_shapes"] = sizes
    for key, value in parameters.items():
        each.parameters.add(key=key, value=value)


def _profile(found: Description, shapes: Shapes, place: str) -> str:
    """``ids:1x5,mask:1x5``: the inputs with an open size."""
    written = []
    for tensor in found.inputs:
        dims = tensor.shape or ()
        if any(isinstance(dim, str) for dim in dims):
            sizes = [
                str(getattr(span_of(dim, shapes), place) if isinstance(dim, str) else dim)
                for dim in dims
            ]
            written.append(f"{tensor.name}:{'x'.join(sizes)}")
    return ",".join(written)


def add_cuda_graphs(
    config: Any, found: Description, interface: Interface, artefact: Artefact
) -> None:
    """Capture launches for one row and for the most, at the usual sizes.

    Raises:
        PackageError: If what it launches depends on values.
    """
    bad = sorted(_UNCAPTURED & set(found.operators))
    if bad:
        raise PackageError(
            f"the graph has {', '.join(bad)}, so its launches depend on values and cannot be"
            " captured",
            hint="leave --cuda-graphs out",
        )
    cuda = config.optimization.cuda
    cuda.graphs = True
    skipped = 1 if interface.max_batch_size else 0
    for rows in dict.fromkeys((1, interface.max_batch_size or 1)):
        spec = cuda.graph_spec.add(batch_size=rows if skipped else 0)
        for tensor in found.inputs:
            dims = (tensor.shape or ())[skipped:]
            spec.input.add(key=tensor.name).value.dim.extend(
                span_of(dim, artefact.usual).opt if isinstance(dim, str) else int(dim or 1)
                for dim in dims
            )
