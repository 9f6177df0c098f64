"""Rules for the files of a model: versions, warm-up data, labels, and hashes."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.bundle import MANIFEST, Manifest, hash_file
from toolkit.errors import BundleError
from toolkit.package.findings import Level
from toolkit.package.layout import GRAPH, PLAN, served_versions
from toolkit.package.tensor_rules import dtype_name
from toolkit.package.warmup import FOLDER

__all__ = ["hash_rules", "label_rules", "python_rules", "version_rules", "warmup_rules"]

Found = Iterator[tuple[Level, str]]

_CLASS = "TritonPythonModel"
_BYTES: Mapping[str, int] = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 1, "TYPE_INT8": 1, "TYPE_UINT16": 2, "TYPE_INT16": 2,
    "TYPE_FP16": 2, "TYPE_BF16": 2, "TYPE_UINT32": 4, "TYPE_INT32": 4, "TYPE_FP32": 4,
    "TYPE_UINT64": 8, "TYPE_INT64": 8, "TYPE_FP64": 8,
}  # fmt: skip


def version_rules(config: Any, there: list[int]) -> Found:
    """That the policy chooses a version that is there."""
    if not there:
        yield "refused", "there is no version: a folder named by a number, such as 1"
        return
    wanted = list(config.version_policy.specific.versions)
    absent = [version for version in wanted if version not in there]
    if not served_versions(config, there):
        yield "refused", f"version_policy wants {wanted}, there is {there}"
    elif absent:
        yield "wrong", f"version_policy wants {absent} as well, there is {there}"


def label_rules(config: Any, model: Path) -> Found:
    """That label files are there."""
    for output in config.output:
        if output.label_filename and not (model / output.label_filename).is_file():
            yield "refused", f"the labels of {output.name!r}, {output.label_filename}, are missing"


def warmup_rules(config: Any, model: Path) -> Found:
    """That every warm-up request is one the server can make and the model takes."""
    inputs = {tensor.name: tensor for tensor in config.input}
    for request in config.model_warmup:
        what = f"warm-up {request.name!r}"
        if request.batch_size == 0:
            yield "wrong", f"{what} is not run: its batch_size is 0"
            continue
        largest = max(1, config.max_batch_size)
        if request.batch_size > largest:
            rows = f"{request.batch_size} rows, at most {largest}"
            yield "refused", f"{what} has {rows}; it can end the whole server"
        given = {entry.key: entry.value for entry in request.inputs}
        for name, tensor in inputs.items():
            if name not in given and not tensor.optional:
                yield "refused", f"{what} lacks input {name!r}"
        for name, value in given.items():
            if name not in inputs:
                yield "refused", f"{what} gives {name!r}, which is no input"
            else:
                yield from _value(f"{what}, {name!r}:", value, inputs[name], model)


def _value(what: str, value: Any, tensor: Any, model: Path) -> Found:
    dims, dtype = list(value.dims), dtype_name(value)
    if dtype != dtype_name(tensor):
        yield "refused", f"{what} found {dtype}, wanted {dtype_name(tensor)}"
    if any(dim < 0 for dim in dims):
        yield "refused", f"{what} dims {dims} are not all sizes"
        return
    if len(dims) != len(tensor.dims) or any(
        want not in {-1, has} for has, want in zip(dims, tensor.dims, strict=True)
    ):
        yield "refused", f"{what} dims are {dims}, wanted {list(tensor.dims)}"
    source = value.WhichOneof("input_data_type")
    if source is None:
        yield "refused", f"{what} neither zero_data, random_data nor input_data_file is set"
    elif source == "input_data_file":
        path = model / FOLDER / value.input_data_file
        wanted = math.prod(dims) * _BYTES.get(dtype, 0)
        if not path.is_file():
            yield "refused", f"{what} there is no file {FOLDER}/{value.input_data_file}"
        elif path.stat().st_size < wanted:
            yield "refused", f"{what} found {path.stat().st_size} bytes, wanted {wanted}"


def python_rules(code: Path) -> Found:
    """That Triton's Python backend can read a model's code, as far as reading tells."""
    where = f"{code.parent.name}/{code.name}"
    try:
        tree = ast.parse(code.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        yield "refused", f"{where} is no Python: {error}"
        return
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    names |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if _CLASS not in names:
        yield "refused", f"{where} has no class {_CLASS}"


def hash_rules(version: Path) -> Found:
    """That a version's graph or plans are those that were proven, if manifests say which."""
    for path in sorted(version.glob(f"{Path(MANIFEST).stem}*.json")):
        mark = path.stem.removeprefix(Path(MANIFEST).stem)
        yield from _hashes(version, path, mark)


def _hashes(version: Path, path: Path, mark: str) -> Found:
    try:
        manifest = Manifest.read(path)
    except BundleError as error:
        yield "changed", error.message
        return
    if manifest.verdict != "passed":
        yield "wrong", f"version {version.name} failed its parity proof"
    planned = any(version.glob(f"*{Path(PLAN).suffix}"))
    for recorded, record in manifest.files.items():
        # The plan of another GPU stands beside the first, under a name of its own.
        name = recorded.replace(PLAN, f"{Path(PLAN).stem}{mark}{Path(PLAN).suffix}")
        file = version / name
        if not file.is_file():
            if recorded.startswith(PLAN if planned else GRAPH):
                yield "changed", f"{version.name}/{name} is missing"
        elif hash_file(file) != record:
            yield "changed", f"{version.name}/{name} is not the file of its manifest"
