from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from toolkit.engine import EngineOptions, build_engine, missing, requirements
from toolkit.errors import CapabilityError, EngineError


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"flavour": "openvino"}, "unknown engine flavour 'openvino'"),
        ({"compute_capabilities": ("sm89",)}, "'sm89' is not of the form major.minor"),
        ({"compute_capabilities": ("8.9", "8.9")}, "listed twice: 8.9, 8.9"),
        (
            {"flavour": "tensorrt", "compute_capabilities": ("8.9",)},
            "built for the GPU of the machine that builds it",
        ),
        ({"memory": {"workspace": 0}}, "memory of workspace is 0 bytes; it must be positive"),
        ({"memory": {"sram": 1}}, "found memory 'sram', wanted a pool"),
        ({"memory": {"tactic_shared_memory": 1 << 30}}, "must be below 1 GiB"),
        ({"aux_streams": -1}, "aux_streams is -1; it must be 0 or more"),
        ({"version_compatible": True}, "without the lean runtime that such a plan needs"),
        (
            {"hardware_compatibility": "ampere_plus"},
            "is for every architecture that it is built for",
        ),
        ({"timing_cache": Path("x")}, "found timing_cache x: TensorRT-RTX times no kernels"),
        (
            {"flavour": "tensorrt", "exclude_lean_runtime": True},
            "found exclude_lean_runtime without version_compatible",
        ),
        (
            {"flavour": "tensorrt", "timing_cache": "off", "timing_cache_strict": True},
            "no timing cache to be strict about",
        ),
        (
            {"flavour": "tensorrt", "optimization_level": 0, "timing_cache_strict": True},
            "with optimization_level 0, which reads no timing cache",
        ),
        ({"optimization_level": 6}, "optimization_level is 6; it must be 0, 1, 2, 3, 4 or 5"),
        ({"plugin": "aot"}, "found plugin aot: TensorRT-RTX takes no plugins"),
        ({"time_limit": 0}, "time_limit is 0 s; it must be positive"),
    ],
)
def test_a_wrong_option_says_what_was_found(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        EngineOptions(**wrong)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without TensorRT, TensorRT-RTX or a GPU."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(requirements, "device_capability", lambda: None)


def refusal(options: EngineOptions) -> CapabilityError:
    with pytest.raises(CapabilityError) as caught:
        build_engine(Path("model.onnx"), {}, options, Path("model.plan"))
    assert caught.value.exit_code == 4
    return caught.value


def test_a_missing_package_comes_with_its_command(bare: None) -> None:
    error = refusal(EngineOptions())
    assert error.message == (
        "a TensorRT-RTX engine cannot be built: this machine lacks the Python package tensorrt_rtx"
    )
    assert error.hint == "install it with: pip install 'ensemble-to-engine[rtx]'"


def test_tensorrt_names_everything_that_is_missing(bare: None) -> None:
    error = refusal(EngineOptions(flavour="tensorrt"))
    assert error.message == (
        "a TensorRT engine cannot be built: this machine lacks the Python package tensorrt "
        "and an NVIDIA GPU with its driver"
    )
    assert "pip install 'ensemble-to-engine[gpu]'" in error.hint
    assert "tensorrt-rtx builds engines without a GPU" in error.hint


def test_rtx_needs_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(requirements, "device_capability", lambda: None)
    assert missing("tensorrt-rtx") == ()
    assert missing("tensorrt") == ("an NVIDIA GPU with its driver",)


def test_the_device_is_asked_without_loading_tensorrt() -> None:
    capability = requirements.device_capability()
    assert capability is None or float(capability) >= 5.0


def test_a_missing_onnx_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(EngineError, match=r"there is no ONNX file at .*absent\.onnx"):
        build_engine(tmp_path / "absent.onnx", {}, EngineOptions(), tmp_path / "model.plan")


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (tmp_path / "model.onnx").touch()
    with pytest.raises(EngineError, match=r"cannot write .*model\.plan: No such file or directory"):
        build_engine(
            tmp_path / "model.onnx", {}, EngineOptions(), tmp_path / "absent" / "model.plan"
        )
