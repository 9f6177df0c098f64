"""New values for the weights of a model on disk, in place of the old ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.external_data_helper import ExternalDataInfo

from graphs.errors import GraphError
from graphs.store import data_path, load

__all__ = ["WeightPatch"]

_Array = npt.NDArray[Any]


class WeightPatch:
    """Writes initializers where they lie: in the data file, or in the model file at the end.

    Everything else of both files keeps its bytes. Nothing guards against an interruption: patch a
    copy, and put it in place of the other when this has been left.
    """

    def __init__(self, path: Path) -> None:
        """Take a model whose files may be written.

        Raises:
            GraphError: If it cannot be read.
        """
        load(path)  # which refuses data outside the folder, or missing
        self._path = path
        self._proto = onnx.load(str(path), format="protobuf", load_external_data=False)
        self._tensors = {tensor.name: tensor for tensor in _initializers(self._proto.graph)}
        self._data: IO[bytes] | None = None
        self._embedded = False

    def __enter__(self) -> WeightPatch:
        """Open the data file."""
        if data_path(self._path).is_file():
            self._data = data_path(self._path).open("r+b")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the data file, and write the model file if a weight in it has changed."""
        if self._data is not None:
            self._data.close()
            self._data = None
        if self._embedded and kind is None:
            self._path.write_bytes(self._proto.SerializeToString(deterministic=True))

    def put(self, name: str, array: _Array, piece: int | None = None) -> None:
        """Give an initializer, or one piece of it along its first axis, a value.

        Args:
            name: The initializer.
            array: As many bytes as are there, in the order of the initializer.
            piece: Which piece; None is the whole.

        Raises:
            GraphError: If there is no such initializer, or the sizes differ.
        """
        if name not in self._tensors:
            raise GraphError(f"{self._path.name} has no initializer {name!r} to write")
        tensor = self._tensors[name]
        data = np.ascontiguousarray(array).tobytes()
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = ExternalDataInfo(tensor)
            start, length = info.offset or 0, info.length
            offset = self._offset(name, len(data), length or len(data), piece)
            assert self._data is not None
            self._data.seek(start + offset)
            self._data.write(data)
            return
        old = _raw(tensor)
        offset = self._offset(name, len(data), len(old), piece)
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data = old[:offset] + data + old[offset + len(data) :]
        self._embedded = True

    def _offset(self, name: str, found: int, whole: int, piece: int | None) -> int:
        offset = 0 if piece is None else piece * found
        if (piece is None and found != whole) or offset + found > whole:
            raise GraphError(f"{name!r} holds {whole} bytes, found {found} to put at {offset}")
        return offset


def _raw(tensor: onnx.TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return onnx.numpy_helper.to_array(tensor).tobytes()


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _initializers(attribute.g)
