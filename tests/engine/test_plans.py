"""Plans on disk: what their first bytes say, whether a machine fits, what an inspector says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.engine import Needs, fit, read_header, require_fit
from toolkit.engine.fit import misfits
from toolkit.engine.inspector import EngineLayer, read_information
from toolkit.errors import CapabilityError, EngineError


def plan(path: Path, tag: bytes = b"ftrt", layout: int = 0) -> Path:
    start = tag + layout.to_bytes(4, "little") + bytes(16) + bytes([10, 16, 1, 11])
    path.write_bytes(start + b"the rest")
    return path


def test_a_header_says_library_and_version(tmp_path: Path) -> None:
    assert read_header(plan(tmp_path / "a.plan")).title == "TensorRT 10.16.1.11"
    assert read_header(plan(tmp_path / "a.plan", b"vtrt")).flavour == "tensorrt-rtx"
    later = read_header(plan(tmp_path / "a.plan", layout=7))
    assert (later.version, later.title) == ("", "TensorRT (of a version not known here)")


@pytest.mark.parametrize("content", [b"", b"ftrt", b"GIF89a" + bytes(30)])
def test_other_files_are_no_plans(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.plan").write_bytes(content)
    with pytest.raises(EngineError, match=r"is no plan: found b'.*wanted one of ftrt, vtrt"):
        read_header(tmp_path / "a.plan")


MADE: dict[str, Any] = {"flavour": "tensorrt", "compute_capabilities": ("9.0",)}


@pytest.mark.parametrize(
    ("needs", "installed", "device", "text"),
    [
        ({}, "10.16.1.11", "9.0", ""),
        ({}, "10.16.0.1", "9.0", "was built with TensorRT 10.16.1.11, this machine has 10.16.0.1"),
        ({}, "11.4.0.106", "9.0", "this machine has 11.4.0.106"),
        ({}, "10.16.1.11", "8.9", "was built for compute capability 9.0, this GPU has 8.9"),
        ({"version_compatible": True}, "10.17.0", "9.0", ""),
        ({"version_compatible": True}, "10.15.0", "9.0", "this machine has 10.15.0"),
        ({"version_compatible": True}, "11.0.0", "9.0", "this machine has 11.0.0"),
        ({"hardware_compatibility": "ampere_plus"}, "10.16.1.11", "12.0", ""),
        ({"hardware_compatibility": "ampere_plus"}, "10.16.1.11", "7.5", "this GPU has 7.5"),
        ({"hardware_compatibility": "same_compute_capability"}, "10.16.1.11", "8.6", "has 8.6"),
        ({"compute_capabilities": ()}, "10.16.1.11", "7.5", ""),
        ({"flavour": "tensorrt-rtx"}, "1.7.1", "9.0", "was built with TensorRT-RTX 10.16.1.11"),
    ],
)
def test_a_plan_is_for_its_version_and_its_gpus(needs, installed, device, text) -> None:
    found = list(misfits(Needs(**{**MADE, "version": "10.16.1.11", **needs}), installed, device))
    assert bool(found) == bool(text)
    assert text in " ".join(found)


def test_a_machine_that_does_not_fit_is_exit_4_with_the_command(monkeypatch) -> None:
    needs = Needs("tensorrt", "10.16.1.11", ("9.0",), rebuild="toolkit build out")
    monkeypatch.setattr(fit, "missing", lambda flavour: ())
    monkeypatch.setattr(fit, "installed_version", lambda flavour: "10.16.1.11")
    monkeypatch.setattr(fit, "device_capability", lambda: "8.6")
    with pytest.raises(
        CapabilityError, match=r"out/model\.plan was built for compute cap"
    ) as caught:
        require_fit(needs, "out/model.plan")
    assert (caught.value.exit_code, caught.value.hint) == (
        4,
        "build it again here: toolkit build out",
    )
    monkeypatch.setattr(fit, "device_capability", lambda: "9.0")
    require_fit(needs, "out/model.plan")
    monkeypatch.setattr(fit, "device_capability", lambda: None)
    with pytest.raises(CapabilityError, match="lacks an NVIDIA GPU with its driver"):
        require_fit(Needs("tensorrt-rtx", "1.7.1"), "out/model.plan")


NAMES = {"Layers": ["a/MatMul + a/Add", "b/Relu"], "Bindings": ["x", "y"]}
TENSOR_10 = {"Name": "y", "Dimensions": [1, 4], "Format/Datatype": "Row major linear FP16 format"}
TENSOR_11 = {"Name": "y", "Dimensions": [1, 4], "Format": "LINEAR", "DataType": "BF16"}


def detailed(tensor: dict[str, Any], key: str) -> str:
    layer = {
        "Name": "a/MatMul", "LayerType": "gemm", "Inputs": [], "Outputs": [tensor, tensor],
        "TacticName": "sm90_xmma_gemm",
    }  # fmt: skip
    return json.dumps({"Layers": [layer], key: [tensor]})


def test_an_inspector_gives_names_or_objects_of_either_major() -> None:
    assert read_information(json.dumps(NAMES)) == (
        EngineLayer("a/MatMul + a/Add"), EngineLayer("b/Relu"),
    )  # fmt: skip
    for text, dtype in (
        (detailed(TENSOR_10, "Bindings"), "float16"),
        (detailed(TENSOR_11, "I/O Tensors"), "bfloat16"),
        (detailed({**TENSOR_10, "Format/Datatype": "Float"}, "Bindings"), "float32"),
        (detailed({**TENSOR_10, "Format/Datatype": "Int8"}, "Bindings"), "int8"),
        (detailed({**TENSOR_10, "Format/Datatype": "UInt8"}, "Bindings"), "uint8"),
    ):
        (layer,) = read_information(text)
        assert layer == EngineLayer("a/MatMul", "gemm", (dtype,), "sm90_xmma_gemm")


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": 3}', '{"Layers": [{}]}', '{"Layers": [3]}'])
def test_another_form_is_said_to_be_one(text: str) -> None:
    with pytest.raises(EngineError, match="of a form that is not known here"):
        read_information(text)
