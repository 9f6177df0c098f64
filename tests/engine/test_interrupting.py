"""Ctrl-C while a real builder builds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytestmark = pytest.mark.rtx


def chain(path: Path, length: int = 150) -> None:
    """Layers of many sizes, of which a builder needs seconds."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for step in range(length):
        size = (8 + step % 7, 8 + (step + 1) % 7)
        weight = rng.standard_normal(size).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{step}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{step}"], [f"h{step}"]))
        nodes.append(helper.make_node("Softmax", [f"h{step}"], [f"s{step}"]))
        value = f"s{step}"
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 8])]
    last = [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, ["batch", size[1]])]
    graph = helper.make_graph(nodes, "chain", inputs, last, weights)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def alive(mark: str) -> list[str]:
    """Commands of processes that have inherited a mark in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_ctrl_c_ends_the_builder_and_leaves_nothing(tmp_path: Path) -> None:
    chain(tmp_path / "model.onnx")
    (tmp_path / "model.plan").write_bytes(b"older")
    mark = uuid.uuid4().hex
    command = ["build", "model.onnx", "--target", "tensorrt-rtx", "--shape", "batch=1,4,16"]
    with subprocess.Popen(
        [sys.executable, "-c", "from toolkit.cli import main; main()", *command],
        cwd=tmp_path, text=True, env={**os.environ, "TOOLKIT_TEST_MARK": mark},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.readline()
        while said and not said.startswith("Building engine"):
            said = process.stderr.readline()
        assert any("toolkit.engine.worker" in each for each in alive(mark))
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "error: interrupted" in err
    assert "Traceback" not in err
    deadline = time.monotonic() + 1
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(mark) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.plan"]
    assert (tmp_path / "model.plan").read_bytes() == b"older"
