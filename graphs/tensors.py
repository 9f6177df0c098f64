"""Walking over tensors and values of a model, and the checks that make external data safe."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.errors import GraphError

__all__ = [
    "SMALL",
    "check_tensors",
    "check_text",
    "chunks_of",
    "content_of",
    "graphs_of",
    "has_external",
    "nodes_of",
    "read_small",
    "values_of",
]

# Tensors below this many bytes stay inside the model file, where a reader expects constants.
SMALL = 1024
_CHUNK = 1 << 20


def graphs_of(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, then every subgraph of control flow, outermost first."""
    yield model.graph
    yield from model.graph.subgraphs()


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of the main graph and of its subgraphs."""
    for graph in graphs_of(model):
        yield from graph


def values_of(model: ir.Model) -> Iterator[ir.Value]:
    """Every input, initializer and node output of the main graph and its subgraphs, once."""
    seen: set[int] = set()
    for graph in graphs_of(model):
        outputs = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *outputs):
            if id(value) not in seen:
                seen.add(id(value))
                yield value


def content_of(tensor: ir.TensorProtocol) -> bytes:
    """A hash of the tensor's bytes, taken in chunks, so memory does not grow with the tensor."""
    digest = hashlib.sha256()
    for chunk in chunks_of(tensor, _CHUNK):
        digest.update(chunk)
    return digest.digest()


def chunks_of(tensor: ir.TensorProtocol, size: int) -> Iterator[bytes]:
    """The tensor's bytes piece by piece; from disk by reading, which no mapping keeps resident."""
    if tensor.dtype == ir.DataType.STRING:
        yield from _string_chunks(tensor)
    elif isinstance(tensor, ir.ExternalTensor):
        yield from _file_chunks(tensor, size)
    else:
        content = tensor.tobytes()
        for start in range(0, len(content), size):
            yield content[start : start + size]


def _file_chunks(tensor: ir.ExternalTensor, size: int) -> Iterator[bytes]:
    with open(tensor.path, "rb") as file:  # noqa: PTH123  a path that the library computed
        file.seek(tensor.offset or 0)
        left = tensor.nbytes
        while left > 0 and (chunk := file.read(min(size, left))):
            left -= len(chunk)
            yield chunk


def _string_chunks(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    strings: Sequence[bytes] = tensor.string_data()  # type: ignore[attr-defined]
    for string in strings:
        yield len(string).to_bytes(8, "little") + string


def check_text(model: ir.Model, path: Path) -> None:
    """Refuse names that are not UTF-8, which protobuf hands over as bytes.

    Raises:
        GraphError: At the first such name.
    """
    for text in _texts(model):
        if isinstance(text, bytes):
            raise GraphError(f"{path} is a malformed ONNX model: {text!r} is not UTF-8 text")


def _texts(model: ir.Model) -> Iterator[object]:
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    yield from model.metadata_props.items()
    functions = [(f.name, f.domain, f.overload, *f.opset_imports) for f in model.functions.values()]
    yield from (text for texts in functions for text in texts)
    for graph in graphs_of(model):
        yield from (graph.name, *graph.opset_imports)
    for node in nodes_of(model):
        yield from (node.name, node.op_type, node.domain, node.overload, *node.attributes)
    for value in values_of(model):
        yield value.name
        yield from (getattr(dim, "value", dim) for dim in value.shape or ())


def read_small(model: ir.Model) -> None:
    """Take tensors out of external data that belong inside the file.

    Those are the small ones and the attributes of nodes. ONNX's C++ library, given a model in
    memory, looks for external data in the working directory, so it must not see any.
    """
    for graph in graphs_of(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes < SMALL:
                value.const_value = _in_memory(tensor)
    for node in nodes_of(model):
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
                continue
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, _in_memory(tensor))


def has_external(graph: ir.Graph) -> bool:
    """Whether an initializer of this graph lies in external data."""
    values = graph.initializers.values()
    return any(isinstance(value.const_value, ir.ExternalTensor) for value in values)


def _in_memory(tensor: ir.ExternalTensor) -> ir.Tensor[npt.NDArray[np.generic]]:
    array = tensor.numpy().copy()
    tensor.release()
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)


def check_tensors(model: ir.Model, path: Path) -> None:
    """Refuse tensors whose bytes are missing, cut short, of the wrong size or outside the folder.

    Raises:
        GraphError: At the first such tensor, naming it.
    """
    for name, tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, name, path)
        elif tensor.dtype != ir.DataType.STRING:
            _check_embedded(tensor, name, path)
    for function in model.functions.values():
        for node in function:
            for tensor in _attribute_tensors(node):
                if isinstance(tensor, ir.ExternalTensor):
                    raise GraphError(
                        f"{path}: function {function.name!r} keeps a constant in external data, "
                        "wanted it inside the file"
                    )


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for graph in graphs_of(model):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
        for node in graph:
            for tensor in _attribute_tensors(node):
                yield node.outputs[0].name or node.op_type, tensor


def _attribute_tensors(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.as_tensor()
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.as_tensors()


def _check_external(tensor: ir.ExternalTensor, name: str, path: Path) -> None:
    location = str(tensor.location)
    where = f"{path}: tensor {name!r}"
    if Path(location).is_absolute():
        raise GraphError(
            f"{where} has its data at the absolute path {location!r}",
            hint="external data must lie in the model's folder; save the model again",
        )
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not file.is_relative_to(folder):
        raise GraphError(
            f"{where} has its data at {location!r}, which is outside the model's folder",
            hint="external data must lie in the model's folder; replace links by copies (cp -L)",
        )
    if not file.is_file():
        raise GraphError(
            f"{where} has its data in {location!r}, which does not exist",
            hint="copy the data file together with the model, and do not rename it",
        )
    if file.stat().st_nlink > 1:
        raise GraphError(
            f"{where} has its data in {location!r}, which has {file.stat().st_nlink} hard links",
            hint="a hard link can smuggle in a file from elsewhere; replace it by a copy",
        )
    _check_extent(tensor, where, file.stat().st_size)


def _check_extent(tensor: ir.ExternalTensor, where: str, size: int) -> None:
    offset, length = tensor.offset or 0, tensor.length
    if length is not None and length != tensor.nbytes:
        raise GraphError(
            f"{where} records {length} bytes of external data, its type and shape "
            f"need {tensor.nbytes}"
        )
    if offset < 0 or offset + tensor.nbytes > size:
        raise GraphError(
            f"{where} needs bytes {offset} to {offset + tensor.nbytes} of "
            f"{str(tensor.location)!r}, which holds {size}",
            hint="the data file is truncated or belongs to another model; copy it again",
        )


def _check_embedded(tensor: ir.TensorProtocol, name: str, path: Path) -> None:
    try:
        found = len(tensor.tobytes())
    except (ValueError, TypeError) as error:
        raise GraphError(f"{path}: tensor {name!r} cannot be read: {error}") from error
    if found != tensor.nbytes:
        raise GraphError(
            f"{path}: tensor {name!r} holds {found} bytes, its type and shape need {tensor.nbytes}"
        )
