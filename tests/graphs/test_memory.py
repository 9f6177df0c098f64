"""Fusing and rewriting never hold a model in memory; models over 2 GiB work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from graphs import describe

MIB = 1 << 20

# In a process of its own, so that the peak is this work's and not an earlier test's.
MEASURE = """
import json, re, sys
from pathlib import Path
import numpy, onnx, onnx_ir
from graphs import *
import graphs.fusing, graphs.rewriting, graphs.passes

def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

folder, sources = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
before = peak()
leaves = tuple(Leaf(f"m{i}", source) for i, source in enumerate(sources))
weights = (1 / len(leaves),) * len(leaves)
tree = Ensemble("root", leaves, Combination("linear", "values", weights, "y"))
reports = fuse(tree, folder / "fused.onnx")
rewrite(folder / "fused.onnx", [StripExporterMetadata()], folder / "rewritten.onnx")
print(json.dumps({"growth": peak() - before, "shared": len(reports[0].sites)}))
"""


def member(folder: Path, name: str, tensors: list[tuple[int, int]], *, sparse: bool) -> Path:
    """A model that adds up tensors of [2^20, columns] float32 in external data.

    Args:
        folder: Where to write.
        name: Of the file.
        tensors: Per tensor its number of columns and the byte it is filled with.
        sparse: Leave holes in the data file, which read as zeros and take no disk.
    """
    nodes, initializers, last = [], [], "x"
    with (folder / f"{name}.data").open("wb") as data:
        for index, (columns, fill) in enumerate(tensors):
            size = 4 * MIB * columns
            tensor = TensorProto(
                name=f"w{index}", data_type=1, dims=[MIB, columns], data_location=1
            )
            place = {"location": f"{name}.data", "offset": data.tell(), "length": size}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            initializers.append(tensor)
            nodes += [
                helper.make_node("ReduceSum", [f"w{index}"], [f"s{index}"], keepdims=0),
                helper.make_node("Add", [last, f"s{index}"], [f"y{index}"]),
            ]
            last = f"y{index}"
            if sparse:
                data.seek(size, os.SEEK_CUR)
            else:
                for _ in range(columns):
                    data.write(bytes([fill]) * (4 * MIB))
        data.truncate(data.tell())
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", 1, ["b"])],
        [helper.make_tensor_value_info("y", 1, ["b"])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def measure(folder: Path, *sources: Path) -> dict[str, int]:
    command = [sys.executable, "-c", MEASURE, str(folder), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_peak_does_not_grow_with_the_model(tmp_path):
    # Two members of 160 MiB, 64 MiB of them equal; each holds tensors that begin alike.
    a = member(tmp_path, "a", [(16, 1), (16, 2), (8, 3)], sparse=False)
    b = member(tmp_path, "b", [(16, 1), (16, 4), (8, 5)], sparse=False)
    found = measure(tmp_path, a, b)
    assert found["shared"] == 1
    assert (tmp_path / "fused.onnx.data").stat().st_size == (320 - 64) * MIB
    # Tensors are hashed and copied in chunks; 64 MiB is a fifth of the model and covers the rest.
    assert found["growth"] < 64 * MIB, f"grew by {found['growth'] / MIB:.0f} MiB"


@pytest.mark.slow
def test_models_over_two_gib_are_fused(tmp_path):
    # Holes take no disk in the source; the tensors differ in shape, so none is hashed.
    free = os.statvfs(tmp_path)
    if free.f_bavail * free.f_frsize < 6 << 30:
        pytest.skip("needs 6 GiB of free disk")
    a = member(tmp_path, "a", [(300, 0), (280, 0)], sparse=True)
    found = measure(tmp_path, a)
    assert (tmp_path / "fused.onnx.data").stat().st_size == 580 * 4 * MIB > 2 << 30
    assert found["growth"] < 64 * MIB, f"grew by {found['growth'] / MIB:.0f} MiB"
    assert describe(tmp_path / "rewritten.onnx").parameters == 580 * MIB + 1 + 1
