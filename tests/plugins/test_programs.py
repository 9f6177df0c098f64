"""The C++ test programs pass, and CMake builds what a machine can build and names what it skips."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.plugins.host import FLAGS, SOURCES, compiler

CMAKE = "cmake"


def find(name: str, *places: Path) -> Path | None:
    """The first of the folders that holds a header."""
    return next((place for place in places if (place / name).is_file()), None)


def program(folder: Path, *sources: str, includes: tuple[Path, ...] = ()) -> str:
    """What a program of these sources prints; it has to succeed."""
    flags = [*FLAGS, "-Wno-unknown-pragmas", "-Wno-deprecated-declarations"]
    for include in includes:
        flags += ["-isystem", str(include)]
    command = [compiler(), *flags, *(SOURCES / source for source in sources)]
    made = subprocess.run(
        [*command, "-o", folder / "program"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run([folder / "program"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_plain_program_agrees_with_loops_in_double(tmp_path):
    assert program(tmp_path, "host.cpp", "host_test.cpp") == "ok\n"


def test_the_plugins_host_code_runs_against_doubles_of_tensorrt(tmp_path):
    root = Path(os.environ.get("TENSORRT_ROOT", "/usr/local/tensorrt"))
    tensorrt = find("NvInfer.h", root / "include", root, Path("/usr/include/x86_64-linux-gnu"))
    if tensorrt is None:
        pytest.skip("NvInfer.h not found (set TENSORRT_ROOT)")
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    cuda = find("cuda_runtime_api.h", home / "include", Path("/usr/include"))
    if cuda is None:
        pytest.skip("cuda_runtime_api.h not found (set CUDA_HOME)")
    sources = ("plugin.cpp", "plugin_test.cpp", "host.cpp")
    assert program(tmp_path, *sources, includes=(tensorrt, cuda)) == "ok\n"


@pytest.mark.slow
def test_cmake_without_cuda_builds_and_runs_the_host_test(tmp_path):
    if shutil.which(CMAKE) is None:
        pytest.skip("this machine lacks cmake")
    compiler()
    configured = subprocess.run(
        [CMAKE, "-S", SOURCES, "-B", tmp_path, "-DTOOLKIT_CUDA=OFF"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert configured.returncode == 0, configured.stderr
    assert "SKIP topk_gating kernels: no CUDA compiler found (set CUDACXX)" in configured.stdout
    subprocess.run([CMAKE, "--build", tmp_path], check=True, capture_output=True)
    ran = subprocess.run(
        ["ctest", "--test-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "1 tests" in ran.stdout or "out of 1" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("found", [False, True])
def test_cmake_says_whether_tensorrt_is_there(tmp_path, found):
    if shutil.which(CMAKE) is None or shutil.which("nvcc") is None:
        pytest.skip("this machine lacks cmake or nvcc")
    if found:
        # Only the version is read when configuring.
        (tmp_path / "include").mkdir()
        (tmp_path / "include" / "NvInfer.h").touch()
        version = (
            "#define TRT_MAJOR_ENTERPRISE 11\n#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n"
        )
        (tmp_path / "include" / "NvInferVersion.h").write_text(version)
    configured = subprocess.run(
        [CMAKE, "-S", SOURCES, "-B", tmp_path / "out", f"-DTENSORRT_ROOT={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "TENSORRT_ROOT"},
    )
    assert configured.returncode == 0, configured.stderr
    skipped = "SKIP topk_gating plugin: NvInfer.h not found (set TENSORRT_ROOT)"
    assert (skipped in configured.stdout) is not found
    targets = subprocess.run(
        [CMAKE, "--build", tmp_path / "out", "--target", "help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for library in ("toolkit_topk_gating_trt11_static", "toolkit_topk_gating_trt11_entry"):
        assert (library in targets) is found
