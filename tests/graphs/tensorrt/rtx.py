"""What TensorRT-RTX does with many graphs: parsed and built in processes that may crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["verdicts"]

_SCRIPT = """
import json, sys
import tensorrt_rtx as trt

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.last = ""
    def log(self, severity, text):
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.last = text

def verdict(path):
    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        return "parser: " + parser.get_error(0).desc()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        if -1 in tuple(tensor.shape):
            sizes = [[n if dim < 0 else dim for dim in tensor.shape] for n in (1, 4, 16)]
            profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return "builder: " + logger.last if plan is None else ""

for path in sys.argv[1:]:
    print(json.dumps([path]), flush=True)
    print(json.dumps([path, verdict(path)]), flush=True)
"""


def verdicts(paths: Iterable[Path]) -> dict[Path, str]:
    """By graph, the reason why no engine came of it; empty where one did."""
    left = [str(path) for path in paths]
    found: dict[Path, str] = {}
    while left:
        command = [sys.executable, "-c", _SCRIPT, *left]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        assert lines, done.stderr[-2000:]
        found.update({Path(line[0]): line[1] for line in lines if len(line) == 2})
        if len(lines[-1]) == 1:
            found[Path(lines[-1][0])] = f"crash: exit code {done.returncode}"
        left = [path for path in left if Path(path) not in found]
    return found
