"""G0: what can be said of a graph's files without running it.

checker      onnx.checker with full shape inference accepts it
domains      every operator is standard ONNX, has its definition in the file, or was named
dimensions   every dynamic dimension of an input has a name that the shapes range, every named
             dimension of an output follows from them
paths        no text in the file holds an absolute path of some machine
data         weights outside the file lie in its folder, and are as long as the file says
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import checker

from toolkit.artifacts import TensorSpec
from toolkit.parity.results import Check, Gate, Verdict
from toolkit.protos import every_node

__all__ = ["check_files", "hash_files"]

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
# What a recipe can ask for by name: ``export: {experts: native}``.
_NAMED = {
    ("com.microsoft", "MoE"),
    ("com.microsoft", "MatMulNBits"),  # what onnxruntime.quantization makes of weights alone
}
# Node names such as /encoder/layer.0/MatMul are no paths, so only text about the file is read.
_ABSOLUTE = re.compile(r"(?:^|[\s\"'=:(,])(/(?:[\w.+-]+/)+[\w.+-]*|[A-Za-z]:\\\S+|file://\S+)")


def check_files(graph: Path, inputs: Sequence[TensorSpec]) -> Verdict:
    """Hold the file at ``graph``, and the data beside it, against what a bundle may hold."""
    model = onnx.load(str(graph), load_external_data=False)
    checks = (
        _check("checker", _checker(graph), "onnx.checker accepts the file"),
        _check("domains", _domains(model), "every operator is standard or defined in the file"),
        _check("dimensions", _dimensions(model, inputs), "every dynamic dimension has a name"),
        _check("paths", _paths(model), "no text holds an absolute path"),
        _check("data", _data(model, graph), "all weights are in the folder"),
    )
    return Verdict(graph.name, "", "values", checks)


def hash_files(graph: Path) -> dict[str, str]:
    """SHA-256 in hexadecimal of the graph and the files its weights lie in, by name."""
    names = {graph.name}
    for tensor in _tensors(onnx.load(str(graph), load_external_data=False)):
        location = _field(tensor, "location")
        if location and (graph.parent / location).is_file():
            names.add(location)
    return {name: _sha256(graph.parent / name) for name in sorted(names)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check(gate: Gate, problem: str, fine: str) -> Check:
    status, measured = ("fail", 1.0) if problem else ("pass", 0.0)
    return Check("G0", gate, "fail" if status == "fail" else "pass", measured, 0, "",
                 problem or fine)  # fmt: skip


def _checker(graph: Path) -> str:
    try:
        checker.check_model(str(graph), full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def _domains(model: onnx.ModelProto) -> str:
    defined = {(function.domain, function.name) for function in model.functions}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in every_node(body)):
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in defined | _NAMED:
            return f"node {node.name!r} is {node.domain}::{node.op_type}, defined nowhere"
    return ""


def _dimensions(model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> str:
    known = {symbol for spec in inputs for symbol in spec.symbols}
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in weights]
    for value in given:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            if not dim.dim_param:
                return f"dimension {axis} of input {value.name!r} has no name"
            strange = [name for name in dim.dim_param.split(" + ") if name not in known]
            if strange:
                return f"dimension {axis} of input {value.name!r} is {strange[0]!r}, not ranged"
    return ""


def _paths(model: onnx.ModelProto) -> str:
    for where, text in _texts(model):
        found = _ABSOLUTE.search(text)
        if found:
            return f"{where} holds the path {found[1]!r}"
    return ""


def _texts(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    yield "the producer's name", f"{model.producer_name} {model.producer_version}"
    yield "the documentation", model.doc_string
    yield "the graph's documentation", model.graph.doc_string
    for entry in (*model.metadata_props, *model.graph.metadata_props):
        yield f"metadata {entry.key!r}", entry.value
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in every_node(body)):
        yield f"node {node.name!r}", node.doc_string
        for entry in node.metadata_props:
            yield f"metadata {entry.key!r} of node {node.name!r}", entry.value


def _data(model: onnx.ModelProto, graph: Path) -> str:
    for tensor in _tensors(model):
        location = _field(tensor, "location")
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        path = graph.parent / location
        inside = path.resolve().is_relative_to(graph.parent.resolve())
        if not inside or Path(location).is_absolute():
            return f"weight {tensor.name!r} lies outside the folder, at {location!r}"
        if not path.is_file():
            return f"weight {tensor.name!r} lies in {location!r}, which is not there"
        end = int(_field(tensor, "offset") or 0) + int(_field(tensor, "length") or 0)
        if end > path.stat().st_size:
            return f"weight {tensor.name!r} ends at byte {end} of {location!r}, past its end"
    return ""


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for body in bodies for node in every_node(body)):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from graph.initializer


def _field(tensor: onnx.TensorProto, key: str) -> str:
    found: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    return found.get(key, "")
