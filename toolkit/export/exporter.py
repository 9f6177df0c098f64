"""Exports a source through ``torch.onnx.export(dynamo=True)`` with named, linked dimensions."""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

import graphs
from toolkit.artifacts import OnnxModel, Shapes, TensorSpec, span_of
from toolkit.errors import ExportError
from toolkit.export.complexes import ComplexAsPairs
from toolkit.export.experts import TRANSLATIONS, define_operators, expert_operators
from toolkit.export.foreign import adopt_onnx
from toolkit.feeds import make_feeds
from toolkit.sources import Source
from toolkit.sources.base import torch_dtype

__all__ = ["ExportOptions", "export_source", "read_onnx"]

# Sizes no architecture uses as a width, so that a size meant to vary is never taken for a constant.
_EXAMPLE_SIZES = (5, 7, 11, 13, 3, 2)


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: The ONNX opset of the graph, 18 to 23.
        precision: The floating-point type of weights and arithmetic. Inputs and outputs keep
            their types: they are converted inside the graph.
    """

    opset: int = 20
    precision: Literal["float32", "float16", "bfloat16"] = "float32"


def export_source(
    source: Source,
    shapes: Shapes,
    options: ExportOptions,
    out: Path,
    traced: Callable[[torch.export.ExportedProgram], None] | None = None,
) -> OnnxModel:
    """Write ``source`` as ONNX to ``out``, weights in ``out``.data beside it.

    Every symbolic dimension of the inputs is dynamic within its range in ``shapes`` and keeps its
    name; a range of one value is baked in.

    Args:
        source: The model.
        shapes: The range of each of its symbolic dimensions.
        options: How to export.
        out: The file to write.
        traced: Given the program that was translated, weights and all.

    Raises:
        ExportError: If PyTorch cannot trace the model, or a dimension meant to vary did not.
    """
    module = source.load(options.precision)
    inputs = _example(source.inputs, shapes)
    names = [spec.name for spec in source.inputs]
    with _quiet(), _readable_failures(source.name), expert_operators(module), ComplexAsPairs():
        program = torch.onnx.export(
            _Positional(module, names, torch_dtype(options.precision)).eval(),
            args=tuple(inputs[name] for name in names),
            dynamo=True,
            dynamic_shapes={"tensors": _dynamic_shapes(source.inputs, shapes)},
            input_names=names,
            output_names=list(source.outputs),
            opset_version=options.opset,
            custom_translation_table=dict(TRANSLATIONS),
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{source.name}: torch.onnx.export returned no program")
    define_operators(program.model)
    program.save(out, external_data=True)
    if traced is not None:
        assert program.exported_program is not None
        traced(program.exported_program)
        return read_onnx(out, source.inputs, shapes)
    for value in program.model.graph.initializers.values():
        value.const_value = None
    weights = _weights_by_owner(module)
    del program, module
    gc.collect()  # the program holds reference cycles that keep the weights alive
    _empty_orphans(weights)
    return read_onnx(out, source.inputs, shapes)


_Owned = list[tuple[weakref.ref[nn.Module], list[torch.Tensor]]]


def _weights_by_owner(module: nn.Module) -> _Owned:
    return [
        (weakref.ref(part), [*part.parameters(recurse=False), *part.buffers(recurse=False)])
        for part in module.modules()
    ]


def _empty_orphans(weights: _Owned) -> None:
    """Let go of the weights whose module is gone; a factory may keep its module for the next call.

    The rewrite rules of onnxscript live as long as the process and remember the node that they
    matched last, and through it the graph that it stood in, values included that are no longer
    part of it but know the module's parameters as their constants.
    """
    for owner, tensors in weights:
        if owner() is None:
            for tensor in tensors:
                tensor.data = torch.empty(0, dtype=tensor.dtype)


def read_onnx(path: Path, wanted: Sequence[TensorSpec], shapes: Shapes) -> OnnxModel:
    """Describe an exported file and check that its inputs are as asked.

    Raises:
        ExportError: If an input lost a dynamic dimension or changed its dtype.
    """
    found = graphs.describe(path)
    by_name = {value.name: value for value in found.inputs}
    for spec in wanted:
        shape = tuple(_size(dim, shapes) for dim in spec.shape)
        value = by_name.get(spec.name)
        if value is not None and value.shape != shape:
            raise ExportError(
                f"input {value} was exported, wanted {spec.name}: {spec.dtype}{list(shape)}",
                hint="the model turns that size into a constant; fix it, or fix the size in shapes",
            )
    return OnnxModel(
        path=path,
        inputs=tuple(spec for spec in wanted if spec.name in by_name),
        outputs=adopt_onnx(path).outputs,
        opset=found.opset,
    )


def _size(dim: int | str, shapes: Shapes) -> int | str:
    span = span_of(dim, shapes) if isinstance(dim, str) else None
    return span.max if span is not None and span.fixed else dim


def _example(inputs: Sequence[TensorSpec], shapes: Shapes) -> dict[str, torch.Tensor]:
    dims: dict[str, int] = {}
    for name, span in shapes.items():
        free = [n for n in _EXAMPLE_SIZES if span.min <= n <= span.max and n not in dims.values()]
        dims[name] = free[0] if free and not span.fixed else max(span.max, 1)
    feeds = make_feeds(inputs, dims, np.random.default_rng(0))
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feeds.items()}


class _Positional(nn.Module):
    """Calls a module by keyword; the exporter links dimensions of positional inputs only.

    Floating-point inputs become the module's dtype, its outputs float32, as the interface says.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self._names = tuple(names)
        self._dtype = dtype

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = {
            name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor
            for name, tensor in zip(self._names, tensors, strict=True)
        }
        results: tuple[torch.Tensor, ...] = self.module(**named)
        return tuple(r.float() if r.is_floating_point() else r for r in results)


def _dynamic_shapes(
    inputs: Sequence[TensorSpec], shapes: Shapes
) -> tuple[dict[int, torch.export.Dim | str], ...]:
    """One shared ``Dim`` per name links equal dimensions of different inputs.

    A sum of names is left to PyTorch to infer and only named.
    """
    dims: dict[str, torch.export.Dim | str] = {
        name: torch.export.Dim(name, min=span.min, max=span.max)
        for name, span in shapes.items()
        if not span.fixed
    }
    return tuple(
        {
            axis: dims.get(dim, dim)
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and not span_of(dim, shapes).fixed
        }
        for spec in inputs
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch's exporter says about its own insides and about torchvision."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            yield
        finally:
            registration.setLevel(level)


@contextmanager
def _readable_failures(name: str) -> Iterator[None]:
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        line = next((text for text in str(cause).split("\n") if text.strip()), repr(cause))
        raise ExportError(
            f"{name}: PyTorch cannot export it: {type(cause).__name__}: {line.strip()}",
            hint="torch.export.export on the module shows the place; data-dependent Python "
            "branches and loops are the usual cause",
        ) from error
