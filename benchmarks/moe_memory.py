"""How much memory a sparse layer takes to run, beyond what loading it took."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.expert_layers import LayerGraphs, Sizes
from benchmarks.rows import Row
from toolkit.pipeline.experts import LOWERINGS

__all__ = ["run"]

BOUND = 200.0
TOKENS = 512

# A process of its own, whose peak before and after the first run is compared.
_PROGRAM = """
import json, re, sys
import numpy, onnxruntime

def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

path, tokens, hidden = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
x = numpy.random.default_rng(0).normal(size=(tokens, hidden)).astype("float32")
loaded = peak()
session.run(None, {"x": x})
print(json.dumps([loaded, peak()]))
"""


def run(*, quick: bool) -> list[Row]:
    """64 experts, 2 per token, 512 tokens at once, in every lowering."""
    hidden, inner = (64, 128) if quick else (512, 1024)
    sizes = Sizes(64, 2, hidden, inner)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        graphs = LayerGraphs(sizes, Path(folder) / "layer")
        weights = graphs.layer.bytes
        for name in LOWERINGS:
            command = [sys.executable, "-c", _PROGRAM, graphs.path(name), str(TOKENS), str(hidden)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            loaded, after = json.loads(done.stdout)
            title = f"{sizes}, {TOKENS} tokens, {name}"
            bound = BOUND if name in {"conditionals", "rows"} else None
            rows.append(Row(f"{title}: more than loading", (after - loaded) / 1e6, "MB",
                            bound=bound))  # fmt: skip
            rows.append(Row(f"{title}: peak of loading / weights", loaded / weights, "x"))
    return rows
