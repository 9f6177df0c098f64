"""What ``plugin`` asks of a graph, of this machine and of TensorRT."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import pytest

from graphs import GraphError
from tests.graphs.passes.test_gating_to_plugins import write
from tests.plugins.host import compiler
from toolkit.engine import plugging
from toolkit.engine.messages import Request
from toolkit.engine.network import _network_flags
from toolkit.engine.plugging import LIBRARY_VARIABLE, load_plugins, prepare
from toolkit.errors import CapabilityError, PluginError


def test_without_plugins_the_graph_is_built_from_as_it_is(tmp_path):
    source = write(tmp_path / "in.onnx", "TopKGating")
    assert prepare(source, "none", tmp_path / "out.onnx") == source
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("plugin", "operators"),
    [("aot", ["TopKChoice", "ExpertDispatch"]), ("library", ["TopKGating"])],
)
def test_an_engine_that_carries_kernels_has_one_for_each_operator(tmp_path, plugin, operators):
    source = write(tmp_path / "in.onnx", "TopKGating")
    out = prepare(source, plugin, tmp_path / "out.onnx")
    assert [node.op_type for node in onnx.load(out).graph.node] == operators


def test_a_graph_without_gating_is_refused(tmp_path):
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    graph = helper.make_graph([node], "plain", values[:1], values[1:])
    source = tmp_path / "in.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), source)
    with pytest.raises(GraphError, match="gating_to_plugins"):
        prepare(source, "aot", tmp_path / "out.onnx")


def test_a_missing_compiler_and_a_missing_gpu_are_named(monkeypatch):
    monkeypatch.setattr(plugging, "find_nvrtc", lambda newest: None)
    with pytest.raises(CapabilityError, match="lacks NVRTC that its driver can load the code of"):
        load_plugins(cast("Any", SimpleNamespace()), "aot", "9.0")
    monkeypatch.setattr(plugging, "find_nvrtc", lambda newest: object())
    with pytest.raises(CapabilityError, match="lacks an NVIDIA GPU"):
        load_plugins(cast("Any", SimpleNamespace()), "aot", None)


class Registry:
    """Keeps what it is asked to load and gives ``answer``."""

    def __init__(self, answer: object) -> None:
        self.asked: list[str] = []
        self.answer = answer

    def load_library(self, path: str) -> object:
        self.asked.append(path)
        return self.answer


def release(answer: object = 1) -> Any:
    registry = Registry(answer)
    return SimpleNamespace(
        __version__="11.4.0", registry=registry, get_plugin_registry=lambda: registry
    )


def library(folder: Path, text: str) -> Path:
    (folder / "plugin.c").write_text(text)
    out = folder / "libplugin.so"
    command = [compiler(), "-x", "c", "-shared", "-fPIC", "-o", out, folder / "plugin.c"]
    subprocess.run(command, check=True)
    return out


def test_a_library_that_is_not_named_is_asked_for(monkeypatch):
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    with pytest.raises(CapabilityError, match="wanted the plugin library's path"):
        load_plugins(release(), "library", "9.0")


@pytest.mark.parametrize("entry", [True, False])
def test_a_library_is_asked_for_its_plugins_or_registers_them_itself(tmp_path, monkeypatch, entry):
    text = "void* getCreators(int* n) { return 0; }" if entry else "int x;"
    path = library(tmp_path, text)
    monkeypatch.setenv(LIBRARY_VARIABLE, str(path))
    trt = release()
    load_plugins(trt, "library", "9.0")
    assert trt.registry.asked == ([str(path)] if entry else [])


def test_a_library_that_tensorrt_or_the_system_refuses_is_an_error(tmp_path, monkeypatch):
    path = library(tmp_path, "void* getCreators(int* n) { return 0; }")
    monkeypatch.setenv(LIBRARY_VARIABLE, str(path))
    with pytest.raises(PluginError, match=r"TensorRT 11\.4\.0 refuses the plugin library"):
        load_plugins(release(answer=None), "library", "9.0")
    path = tmp_path / "text.so"
    path.write_text("no library")
    monkeypatch.setenv(LIBRARY_VARIABLE, str(path))
    with pytest.raises(PluginError, match="the plugin library does not load: "):
        load_plugins(release(), "library", "9.0")


def test_kernels_in_the_engine_are_preferred_where_tensorrt_can_be_told():
    flags = SimpleNamespace(STRONGLY_TYPED=1, PREFER_AOT_PYTHON_PLUGINS=3)
    trt: Any = SimpleNamespace(__version__="10.16.1", NetworkDefinitionCreationFlag=flags)
    request = {"flavour": "tensorrt", "plugin": "aot"}
    assert _network_flags(trt, cast("Request", request)) == 0b1010
    assert _network_flags(trt, cast("Request", {**request, "plugin": "library"})) == 0b0010
