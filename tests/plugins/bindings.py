"""NVIDIA's own Python bindings over libraries that hold nothing, in processes of their own.

The bindings' wheels are real and small; the libraries they load are not needed to look at what they
offer. Stubs of the nine functions that they link to let them load on any machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.host import compiler

__all__ = ["RELEASES", "ROOT", "run"]

ROOT = Path(__file__).parents[2]
# Installed by `make test`; see the Makefile.
RELEASES = {major: ROOT / "build" / f"tensorrt{major}" for major in (10, 11)}

_SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry",
    "initLibNvInferPlugins",
)  # fmt: skip
_LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")


def run(major: int, script: str, folder: Path) -> dict:
    """What a script prints last, as JSON; ``trt`` and ``trtp`` are the bindings there."""
    installed = RELEASES[major]
    if not (installed / "tensorrt_bindings").is_dir():
        pytest.skip(f"TensorRT {major}'s bindings are not installed in build/{installed.name}")
    stubs = _stubs(major, folder)
    preamble = (
        "import sys, tensorrt_bindings as trt\n"
        "sys.modules['tensorrt'] = trt\n"
        "import tensorrt_bindings.plugin as trtp\n"
        "sys.modules['tensorrt.plugin'] = trtp\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", preamble + script],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(stubs),
            "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _stubs(major: int, folder: Path) -> Path:
    source = folder / "stubs.c"
    source.write_text("".join(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        name = f"{library}.so.{major}"
        command = [compiler(), "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{name}"]
        subprocess.run([*command, "-o", folder / name, source], check=True)
    return folder
