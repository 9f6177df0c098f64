"""NVIDIA's own Python bindings over libraries that hold nothing, in processes of their own.

The wheels of the bindings are real and small. The libraries that they load are not needed to look
at what they offer: stubs of the nine functions that they link to let them load on any machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["RELEASES", "ROOT", "ask"]

ROOT = Path(__file__).parents[2]
# Installed by `make test`; see the Makefile.
FOLDER = ROOT / "build" / "tensorrt-bindings"
RELEASES = ("10.8.0.43", "10.16.1.11", "11.4.0.106")

_SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry",
    "initLibNvInferPlugins",
)  # fmt: skip
_LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")


def ask(release: str, script: str, question: Any, folder: Path) -> Any:
    """What a script that knows ``trt`` and ``question`` leaves in ``answer``.

    ``release`` is one of ``RELEASES``, or ``rtx`` for the installed TensorRT-RTX, which is whole.
    """
    module, paths = "tensorrt_rtx", [str(ROOT)]
    environment = dict(os.environ)
    if release == "rtx":
        pytest.importorskip("tensorrt_rtx")
    else:
        if not (FOLDER / release / "tensorrt_bindings").is_dir():
            pytest.skip(f"TensorRT {release}'s bindings are not in build/{FOLDER.name}")
        module = "tensorrt_bindings"
        paths.insert(0, str(FOLDER / release))
        environment["LD_LIBRARY_PATH"] = str(_stubs(release.partition(".")[0], folder))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    program = (
        f"import json, sys\nimport {module} as trt\nquestion = json.loads(sys.stdin.read())\n"
        f"{script}\nprint(json.dumps(answer))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(question), cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _stubs(major: str, folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("this machine lacks a C compiler")
    source = folder / "stubs.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in _SYMBOLS))
    for library in _LIBRARIES:
        name = f"{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, source.name]
        subprocess.run(command, check=True, cwd=folder)
    return folder
