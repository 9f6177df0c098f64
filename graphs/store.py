"""Reading and writing ONNX files with external data.

Tensors in a data file stay on disk: they are memory-mapped when read and copied one at a time
when written, so a model never lies in memory as a whole. Writing goes to a folder beside the
target that is renamed into place after ``onnx.checker`` has passed, so after a failure there is
the old model or none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import checker
from onnx_ir.passes import common

from graphs.errors import GraphError
from graphs.tensors import SMALL, check_tensors, check_text, has_external, read_small

__all__ = ["IR_VERSION", "data_path", "load", "save"]

# IR version 10 is read by ONNX Runtime since 1.18 and by TensorRT since 10.
IR_VERSION = 10


def data_path(path: Path) -> Path:
    """Where the external data of the model at ``path`` lies: ``model.onnx.data``."""
    return path.with_name(path.name + ".data")


def load(path: Path) -> ir.Model:
    """Read a model; tensors in external data are memory-mapped on first use.

    Raises:
        GraphError: If there is no such file, it is no ONNX model, or its data file is missing,
            truncated or outside the model's folder.
    """
    proto = _read_proto(path)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise GraphError(f"{path} is a malformed ONNX model: {_first_line(error)}") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    check_text(model, path)
    check_tensors(model, path)
    read_small(model)
    if any(has_external(graph) for graph in model.graph.subgraphs()):
        # Only the main graph's large initializers are kept out of ONNX's C++ library.
        common.LiftSubgraphInitializersToMainGraphPass()(model)
    with _validated(f"{path} is not valid ONNX"), _same_order(model.graph):
        if any(output.shape is None for output in model.graph.outputs):
            common.ShapeInferencePass()(model)
        # Not by path: weights inside the file would lie in memory twice. The library takes large
        # ones out before it calls ONNX, and small ones are never external by now.
        common.CheckerPass()(model)
    return model


def _read_proto(path: Path) -> onnx.ModelProto:
    """Parse the file without its external data.

    Raises:
        GraphError: If there is no such file or it is no ONNX model.
    """
    if not path.is_file():
        raise GraphError(f"there is no ONNX file {path}")
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise GraphError(f"{path} is not an ONNX model: its bytes cannot be parsed") from error
    except OSError as error:
        raise GraphError(f"{path} cannot be read: {error.strerror}") from error
    if not proto.HasField("graph") or not proto.opset_import:
        missing = "opset version" if proto.HasField("graph") else "graph"
        raise GraphError(f"{path} is not an ONNX model: it has no {missing}")
    return proto


def save(model: ir.Model, out: Path) -> None:
    """Write ``out`` and, if any tensor has 1 KiB or more, ``out.name + ".data"`` beside it.

    Tensors are written one at a time, in the order of the graph, and ``onnx.checker`` has passed
    before anything appears under its final name.

    Raises:
        GraphError: If the graph is not valid ONNX or the files cannot be written.
    """
    with _reported(out), _staging(out) as folder:
        staged = folder / out.name
        ir.save(model, staged, external_data=data_path(out).name, size_threshold_bytes=SMALL - 1)
        with _validated(f"{out.name} would not be valid ONNX"):
            checker.check_model(str(staged))
        _publish(staged, out)


@contextmanager
def _validated(verdict: str) -> Iterator[None]:
    try:
        yield
    except (checker.ValidationError, ir.serde.SerdeError, UnicodeDecodeError) as error:
        raise GraphError(f"{verdict}: {_first_line(error)}") from error


@contextmanager
def _same_order(graph: ir.Graph) -> Iterator[None]:
    """The library takes large initializers out while it calls ONNX, and puts them back last."""
    order = list(graph.initializers.values())
    yield
    graph.initializers.clear()
    for value in order:
        graph.register_initializer(value)


def _publish(staged: Path, out: Path) -> None:
    data = data_path(staged)
    if data.exists() and data.stat().st_size:
        data.replace(data_path(out))
    else:
        data_path(out).unlink(missing_ok=True)
    staged.replace(out)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reported(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise GraphError(f"cannot write {out}: {reason}") from error


def _first_line(error: BaseException) -> str:
    """The first line of the innermost cause: libraries wrap it in dumps of what they held."""
    cause = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
