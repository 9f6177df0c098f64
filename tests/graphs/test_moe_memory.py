"""Lowering experts holds no layer in memory, and writes every weight once, also over 2 GiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import onnx
import pytest

from tests.graphs.moe_layers import Layer, write

MIB = 1 << 20
COUNT, SIDE = 48, 2048  # up [48, 2 * 2048, 2048] and down [48, 2048, 2048]: 2.25 GiB

MEASURE = """
import json, re, sys
from pathlib import Path
import numpy, onnx, onnx_ir
from graphs import *
import graphs.rewriting, graphs.passes

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
(report,) = rewrite(Path(sys.argv[1]), [ExpertsToConditionals()], Path(sys.argv[2]))
print(json.dumps({"growth": peak() - before, "sites": len(report.sites)}))
"""


@pytest.mark.slow
def test_experts_of_more_than_two_gibibytes_pass_through(tmp_path):
    plain = write(tmp_path / "large.onnx", Layer(experts=COUNT, hidden=8, inner=8), external=False)
    model = onnx.load(plain)
    shapes = {"moe.up": (COUNT, 2 * SIDE, SIDE), "moe.down": (COUNT, SIDE, SIDE)}
    with (tmp_path / "large.data").open("wb") as data:
        for tensor in model.graph.initializer:
            if tensor.name in shapes:
                tensor.ClearField("raw_data")
                tensor.dims[:] = shapes[tensor.name]
                size = 4 * COUNT * tensor.dims[1] * SIDE
                place = {"location": "large.data", "offset": data.tell(), "length": size}
                tensor.data_location = 1
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                data.seek(size, os.SEEK_CUR)  # a hole, which reads as zeros and takes no disk
        data.truncate(data.tell())
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        last = value.type.tensor_type.shape.dim[1]
        last.dim_value = {8: SIDE, 16: 2 * SIDE}.get(last.dim_value, last.dim_value)
    plain.write_bytes(model.SerializeToString())
    out = tmp_path / "out.onnx"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(plain), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sites"] == 1
    assert found["growth"] < 200 * MIB, found
    whole = 12 * COUNT * SIDE * SIDE
    assert whole <= (tmp_path / "out.onnx.data").stat().st_size < whole + MIB
