"""What perf_analyzer of tritonclient 2.51 says is read; a stand-in says it again, word for word."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit.bench import BenchOptions, Point, perf_analyzer
from toolkit.bench.perf_analyzer import analyze
from toolkit.bench.server import Asked, Target
from toolkit.bench.sessions import Job
from toolkit.errors import EngineError

PROGRAM = (
    f"#!{sys.executable}\n"
    '''
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(given["--input-data"]) as file:
    print(json.dumps([given, json.load(file)]), file=open("{calls}", "a"))
if given["--stability-percentage"] == "10" and {unsteady}:
    print(" Failed to obtain stable measurement within 4 measurement windows for concurrency 2.")
    print("Failed to obtain stable measurement.")
    sys.exit(2)
print("  Client: \\n    Request count: 4114\\n    Throughput: 4547.22 infer/sec")
with open(given["-f"], "w") as file:
    file.write("""Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\\
Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,\\
p90 latency,p95 latency,p99 latency
2,4547.22,37,260,320,17,201,38,0,644,899,1243,7637
""")
sys.exit({code})
'''
)


@pytest.fixture
def asked():
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(2, 6)}
    target = Target("http", "localhost:8000", "tiny", "3")
    return Asked(target, Job(Path("model.onnx"), feeds), Point("run", {"batch": 2}, 2), 2)


@pytest.fixture
def install(tmp_path, monkeypatch):
    def make(*, unsteady=False, code=0, batches=8):
        path = tmp_path / "perf_analyzer"
        calls = tmp_path / "calls"
        text = PROGRAM.replace("{calls}", str(calls)).replace("{unsteady}", str(unsteady))
        path.write_text(text.replace("{code}", str(code)))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(perf_analyzer, "max_batch_size", lambda target: batches)
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return make


def test_rows_of_a_batch_are_its_own_option(asked, install, tmp_path):
    calls = install()
    found = analyze(asked, BenchOptions(), tmp_path)
    ((given, data),) = calls()
    assert (given["-m"], given["-x"], given["-b"], given["-i"]) == ("tiny", "3", "2", "http")
    assert data == {"data": [{"x": {"content": [0, 1, 2, 3, 4, 5], "shape": [6]}}]}
    assert found.stable
    assert found.requests == 4114
    assert found.rows_per_second == 4547.22
    assert found.requests_per_second == pytest.approx(4547.22 / 2)
    assert {name: value for name, (value, _, _) in found.latency_ms.items()} == {
        "p50": 0.644, "p90": 0.899, "p99": 7.637,
    }  # fmt: skip


def test_a_model_without_batches_is_given_whole_shapes(asked, install, tmp_path):
    calls = install(batches=0)
    found = analyze(asked, BenchOptions(), tmp_path)
    ((given, data),) = calls()
    assert "-b" not in given
    assert data["data"][0]["x"]["shape"] == [2, 6]
    assert found.requests_per_second == 4547.22


def test_what_does_not_become_steady_is_measured_and_marked(asked, install, tmp_path):
    calls = install(unsteady=True)
    found = analyze(asked, BenchOptions(), tmp_path)
    assert not found.stable
    assert [given["--stability-percentage"] for given, _ in calls()] == ["10", "1000"]


def test_its_last_word_is_the_error(asked, install, tmp_path):
    install(code=1)
    with pytest.raises(EngineError, match="perf_analyzer failed: Throughput"):
        analyze(asked, BenchOptions(), tmp_path)
