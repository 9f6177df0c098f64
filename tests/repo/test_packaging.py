"""The wheel and the sdist hold exactly what is tracked; versions and pins agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import toolkit
from tests.repo.sources import ROOT, tracked
from tests.repo.test_contracts import CONFIG

PROJECT = CONFIG["project"]
IN_SDIST = {"benchmarks", "docs", "graphs", "plugins_trt", "samples", "tests", "toolkit"}
IN_WHEEL = {"graphs", "plugins_trt", "toolkit"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """An sdist of the tracked files as they are now, and the wheel built from it."""
    source = tmp_path_factory.mktemp("source")
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_the_wheel_holds_every_tracked_file_of_the_packages_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    info = f"ensemble_to_engine-{toolkit.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    expected = {path.as_posix() for path in tracked() if path.parts[0] in IN_WHEEL}
    generated = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")
    expected |= {f"{info}/{name}" for name in (*generated, "licenses/LICENSE")}
    assert found == expected
    assert {"toolkit/py.typed", "graphs/py.typed"} <= found
    assert "plugins_trt/topk_gating/aot.cu" in found, "engines that carry kernels need their source"


def test_the_wheel_installs_the_toolkit_command(built):
    (wheel,) = built.glob("*.whl")
    info = f"ensemble_to_engine-{toolkit.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert entry_points.split() == ["[console_scripts]", "toolkit", "=", "toolkit.cli:main"]
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata


def test_the_sdist_holds_the_tracked_sources_samples_tests_and_docs(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [Path(member.name) for member in archive.getmembers() if member.isfile()]
    found = {Path(*name.parts[1:]) for name in names}
    expected = {path for path in tracked() if path.parts[0] in IN_SDIST}
    top = {Path(name) for name in ("CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt")}
    assert expected | top <= found
    untracked = {path for path in found - set(tracked()) if "egg-info" not in path.parts[0]}
    assert untracked == {Path("PKG-INFO"), Path("setup.cfg")}


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def pins(python: str) -> dict[str, str]:
    """Pinned versions for one Python, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = {}
    for pin in (Requirement(line) for line in lines if not line.startswith("#")):
        environment = {**default_environment(), "python_version": python}
        if pin.marker is None or pin.marker.evaluate(environment):
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert canonicalize_name(pin.name) not in found, f"{pin.name} is pinned twice"
            found[canonicalize_name(pin.name)] = exact.version
    return found


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_ranges_have_a_lower_bound_and_never_an_exact_version(requirement):
    operators = {specifier.operator for specifier in requirement.specifier}
    # Type stubs follow the package they describe, so any will do.
    assert operators == ({">="} if not requirement.name.startswith("types-") else set())


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_every_direct_requirement_that_make_installs_is_pinned_within_its_range(python):
    # The gpu extra is for machines whose CUDA and TensorRT versions decide.
    unpinned = {Requirement(text).name for text in PROJECT["optional-dependencies"]["gpu"]}
    pinned = pins(python)
    for requirement in requirements():
        if requirement.name in unpinned:
            continue
        exact = pinned.get(canonicalize_name(requirement.name))
        assert exact is not None, f"{requirement.name} has no pin for Python {python}"
        assert requirement.specifier.contains(exact), f"{requirement} excludes its pin {exact}"


def test_the_installed_versions_are_the_pinned_ones():
    pinned = pins(f"{sys.version_info.major}.{sys.version_info.minor}")
    for name in ("numpy", "onnx", "onnx-ir", "onnxruntime", "torch", "transformers"):
        assert version(name).partition("+")[0] == pinned[name]


def test_the_version_is_written_once_and_shown_everywhere():
    assert PROJECT["dynamic"] == ["version"]
    assert version("ensemble-to-engine") == toolkit.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", toolkit.__version__)
    shown = subprocess.run(
        [Path(sys.executable).with_name("toolkit"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"toolkit {toolkit.__version__}\n"
    literal = f'"{toolkit.__version__}"'
    holders = [
        path
        for path in tracked()
        if path.suffix in {".py", ".toml"}
        and path.parts[0] not in {"tests"}
        and literal in (ROOT / path).read_text()
    ]
    assert holders == [Path("toolkit/_version.py")]


def test_continuous_integration_runs_the_same_script_as_a_developer():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: bash .ci/run" in workflow
    script = (ROOT / ".ci/run").read_text()
    assert {"make test", "make lint", "make demo"} <= set(script.splitlines())
    assert "set -euo pipefail" in script
