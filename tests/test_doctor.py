"""What doctor says of the two kinds of plugin, and the command for what is missing."""

from __future__ import annotations

import pytest

from toolkit import doctor
from toolkit.engine.plugging import LIBRARY_VARIABLE
from toolkit.plugins import Nvrtc


@pytest.fixture
def machine(monkeypatch):
    """A machine with these versions and this GPU; None is missing."""

    def set_up(nvrtc=(13, 0), driver=(13, 0), tensorrt="10.16.1", gpu="9.0"):
        def find(newest=None):
            fits = nvrtc is not None and (newest is None or nvrtc <= newest)
            return Nvrtc(None, "", nvrtc) if fits else None

        monkeypatch.setattr(doctor, "find_nvrtc", find)
        monkeypatch.setattr(doctor, "driver_version", lambda: driver)
        monkeypatch.setattr(doctor, "_version", lambda package: tensorrt or "")
        monkeypatch.setattr(doctor, "device_capability", lambda: gpu)
        return {finding.name: finding for finding in doctor.examine()}["plugin: aot"]

    return set_up


def test_kernels_go_into_an_engine_where_everything_is_there(machine):
    found = machine()
    assert (found.ok, found.detail, found.mend) == (True, "NVRTC 13.0, TensorRT 10.16.1", "")


@pytest.mark.parametrize(
    ("lacks", "detail", "mend"),
    [
        ({"nvrtc": None}, "no NVRTC found", "pip install 'ensemble-to-engine[gpu]'"),
        (
            {"driver": (12, 8)},
            "NVRTC 13.0 is newer than the driver's CUDA 12.8",
            "pip install 'nvidia-cuda-nvrtc-cu12<=12.8.999'",
        ),
        (
            {"nvrtc": (13, 5)},
            "NVRTC 13.5 is newer than the driver's CUDA 13.0",
            "pip install 'nvidia-cuda-nvrtc<=13.0.999'",
        ),
        (
            {"tensorrt": "10.8.0"},
            "NVRTC 13.0, TensorRT 10.8.0; wanted 10.9 or later",
            "pip install 'tensorrt>=10.9'",
        ),
        (
            {"tensorrt": None},
            "NVRTC 13.0, TensorRT missing; wanted 10.9 or later",
            "pip install 'tensorrt>=10.9'",
        ),
        (
            {"gpu": None, "driver": None},
            "NVRTC 13.0, no CUDA driver answers",
            "on a machine with an NVIDIA GPU, install its driver",
        ),
    ],
    ids=str,
)
def test_what_is_missing_comes_with_its_command(machine, lacks, detail, mend):
    found = machine(**lacks)
    assert (found.ok, found.detail, found.mend) == (False, detail, mend)


def test_a_plugin_library_is_there_when_the_environment_names_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    found = doctor._plugin_library()
    assert not found.ok
    assert found.mend == (
        "install nvcc and cmake, then make plugin TENSORRT_ROOT=..., and set TOOLKIT_PLUGIN_LIBRARY"
    )
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    assert "names no file" in doctor._plugin_library().detail
    (tmp_path / "some.so").touch()
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "some.so"))
    assert doctor._plugin_library().ok
