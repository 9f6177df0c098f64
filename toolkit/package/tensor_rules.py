"""Rules for the inputs and outputs of a configuration, and how they match a graph's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.package.findings import Level
from toolkit.package.interface import TRITON_DTYPES
from toolkit.package.state_rules import kept_inputs, state_graph_rules

if TYPE_CHECKING:
    from graphs import Description, TensorInfo

__all__ = ["dtype_name", "graph_rules", "shape_of", "tensor_rules"]

Found = Iterator[tuple[Level, str]]

_IMAGE_DIMS = 3


def dtype_name(tensor: Any) -> str:
    """Triton's name of a field's data type."""
    kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type
    return str(kind.values_by_number[tensor.data_type].name)


def shape_of(tensor: Any) -> list[int]:
    """What the backend sees: the reshape if there is one, else the dims; without the batch."""
    return list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def tensor_rules(config: Any) -> Found:
    """What a server asks of inputs and outputs whatever the model is."""
    for kind in ("input", "output"):
        tensors = getattr(config, kind)
        for tensor in tensors:
            yield from _one(kind, tensor, batched=config.max_batch_size > 0)
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                yield "wrong", f"{kind} {name!r} stands there {count} times"
    if not config.output:
        yield "wrong", "no output is listed, so no answer holds anything"


def _one(kind: str, tensor: Any, *, batched: bool) -> Found:
    what = f"{kind} {tensor.name!r}"
    if not tensor.name:
        yield "refused", f"an {kind} has no name"
    if dtype_name(tensor) == "TYPE_INVALID":
        yield "refused", f"{what} has no data_type"
    if not tensor.dims:
        yield (
            "refused",
            f"{what} has no dims; of a scalar they are [1], with reshape {{ shape: [] }}",
        )
    bad = [dim for dim in (*tensor.dims, *tensor.reshape.shape) if dim == 0 or dim < -1]
    if bad:
        yield "refused", f"{what} has dim {bad[0]}, wanted a size, or -1 for any"
    if kind == "input" and tensor.format and len(tensor.dims) != _IMAGE_DIMS:
        yield "refused", f"{what} has {len(tensor.dims)} dims, and its format is of 3"
    if tensor.HasField("reshape"):
        yield from _reshape(what, tensor, batched=batched)


def _reshape(what: str, tensor: Any, *, batched: bool) -> Found:
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if not shape and not batched:
        yield "refused", f"{what} has an empty reshape, which needs max_batch_size > 0"
    elif dims.count(-1) != shape.count(-1) or (
        -1 not in dims and math.prod(dims) != math.prod(shape)
    ):
        yield "refused", f"{what} has dims {dims} and reshape {shape} of another size"


def graph_rules(config: Any, graph: Description, where: str) -> Found:
    """What a server's ONNX Runtime asks: every input, known outputs, their types and shapes."""
    kept = kept_inputs(config)
    yield from _names(config.input, graph.inputs, "input", where, kept)
    yield from _names(config.output, graph.outputs, "output", where)
    yield from state_graph_rules(config, graph, where)
    for kind, found in (("input", graph.inputs), ("output", graph.outputs)):
        actual = {tensor.name: tensor for tensor in found}
        for tensor in getattr(config, kind):
            if tensor.name in actual:
                yield from _against(
                    kind, tensor, actual[tensor.name], where, batched=config.max_batch_size > 0
                )


def _names(
    listed: Sequence[Any],
    found: Sequence[TensorInfo],
    kind: str,
    where: str,
    kept: Sequence[str] = (),
) -> Found:
    names, actual = [tensor.name for tensor in listed], [tensor.name for tensor in found]
    for name in dict.fromkeys(names):
        if name not in actual:
            yield "refused", f"{where} has no {kind} {name!r}, it has {', '.join(actual)}"
    missing = [name for name in actual if name not in names and name not in kept]
    if kind == "input" and len(actual) != len(set(names)) + len(kept):
        for name in missing or actual[:1]:
            yield "refused", f"input {name!r} of {where} is not listed"


def _against(kind: str, tensor: Any, actual: TensorInfo, where: str, *, batched: bool) -> Found:
    what = f"{kind} {tensor.name!r}"
    wanted = TRITON_DTYPES.get(actual.dtype, actual.dtype)
    if dtype_name(tensor) not in {wanted, "TYPE_INVALID"}:
        yield "refused", f"{what} is {dtype_name(tensor)}, in {where} {wanted}"
    if actual.shape is None or not tensor.dims:
        return
    found = [dim if isinstance(dim, int) else -1 for dim in actual.shape]
    if batched:
        if not found or found[0] != -1:
            yield (
                "refused",
                f"{what} is {found} in {where}, which leaves no batch: max_batch_size 0",
            )
            return
        found = found[1:]
    shape = shape_of(tensor)
    if len(shape) != len(found) or any(
        has != want and (kind == "output" or has != -1)
        for has, want in zip(found, shape, strict=True)
    ):
        batch = " after the batch" if batched else ""
        yield "refused", f"{what} is {shape}, in {where} {found}{batch}"
