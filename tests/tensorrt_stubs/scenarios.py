"""Builds with the recording double: what must have been called, for every flavour and major."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tensorrt_stubs.double import made
from toolkit.engine.choices import SWITCHES
from toolkit.errors import CapabilityError, EngineError

__all__ = ["SCENARIOS", "Code", "request"]

Code = SimpleNamespace
"""The modules ``network``, ``worker`` and ``diagnosis`` of the engine stage, real or mutated."""

PROFILES = [
    {"batch": (1, 4, 16), "past": (0, 8, 32), "new": (1, 2, 4)},
    {"batch": (1, 1, 1), "past": (0, 8, 32), "new": (1, 1, 1)},
]


def request(flavour: str, **changes: Any) -> Any:
    """With every option given."""
    chosen = ["12.0", "8.6"] if flavour == "tensorrt-rtx" else []
    return {
        "flavour": flavour, "model": "model.onnx", "plan": "unused", "profiles": PROFILES,
        "compute_capabilities": chosen, "optimization_level": 2, "aux_streams": 1, "tf32": False,
        "memory": {"workspace": 1 << 26, "tactic_dram": 1 << 27, "tactic_shared_memory": 1 << 14},
        "switches": list(SWITCHES), "refit": "any", "profiling_verbosity": "detailed",
        "hardware_compatibility": "ampere_plus", "plugin": "none", "device": None,
        "timing_cache": None, "timing_cache_strict": False, **changes,
    }  # fmt: skip


class Tensor:
    """Has the members of ``api.ITensor`` and no others."""

    __slots__ = ("dtype", "is_shape_tensor", "name", "names", "shape")

    def __init__(self, name: str, shape: tuple, names: tuple, *, deciding: bool = False) -> None:
        self.name, self.shape, self.names = name, shape, names
        self.dtype, self.is_shape_tensor = SimpleNamespace(name="HALF"), deciding

    def get_dimension_name(self, index: int) -> str:
        return self.names[index]


INPUTS = [
    Tensor("x", (-1, 8), ("batch", "")), Tensor("mask", (-1, -1), ("batch", "past + new")),
    Tensor("scale", (3,), ("",)),
]  # fmt: skip
SHAPES = {
    "x": ((1, 8), (4, 8), (16, 8)), "mask": ((1, 1), (4, 10), (16, 36)),
}  # fmt: skip


class Layer:
    """Has the members of ``api.ILayer`` and no others."""

    __slots__ = ("num_outputs", "type")

    def __init__(self, kind: Any, outputs: int) -> None:
        self.type, self.num_outputs = kind, outputs

    def get_output(self, index: int) -> Tensor | None:
        return Tensor("y", (-1, 4), ("rows", "")) if index == 0 else None


def layer(trt: Any, index: int) -> Layer:
    """Two conditions among them, and one output that is not there."""
    kinds = trt.LayerType
    return Layer(kinds.CONDITION if index in {1, 3} else SimpleNamespace(name="GATHER"), index % 3)


ANSWERS = {
    "INetworkDefinition.num_inputs": 3,
    "INetworkDefinition.num_outputs": 1,
    "INetworkDefinition.num_layers": 7,
    "IOptimizationProfile.get_shape": lambda name: SHAPES[name],
    "INetworkDefinition.get_input": lambda index: INPUTS[index],
    "INetworkDefinition.get_output": lambda index: Tensor("y", (-1, 4), ("rows", "")),
    "Builder.build_serialized_network": lambda network, config: b"plan",
}


def run(code: Code, version: str, asked: Any, **answers: Any) -> tuple[Any, list, list, bytes]:
    """Result, calls, events and what was written."""
    rtx = asked["flavour"] == "tensorrt-rtx"
    layers = {"INetworkDefinition.get_layer": lambda index: layer(trt, index)}
    trt, calls = made(version, {**ANSWERS, **layers, **answers}, rtx=rtx)
    events: list[Any] = []
    logger = code.worker._logger(trt, events.append)
    monitor = code.worker._monitor(trt, events.append)
    monitor.phase_start("Building", None, 2)
    monitor.step_complete("Building", 0)
    monitor.phase_finish("Building")
    severity = trt.ILogger.Severity
    logger.log(severity.VERBOSE, "not told")
    logger.log(severity.INTERNAL_ERROR, "a note")
    logger.log(severity.INTERNAL_ERROR, "IBuilder::build: Error Code 1: inner")
    logger.log(severity.ERROR, "IBuilder::build: Error Code 2: out of luck")
    written = bytearray()
    result = code.network.build(trt, asked, logger, monitor, written.extend)
    return result, calls, events, bytes(written)


def _common(calls: list) -> None:
    said = [(call[0], call[1]) for call in calls]
    wanted = [
        ("ILogger", "__init__"), ("IProgressMonitor", "__init__"), ("Builder", "__init__"),
        ("OnnxParser", "__init__"), ("Builder", "create_builder_config"),
    ]  # fmt: skip
    assert all(each in said for each in wanted)
    assert ("OnnxParser", "parse_from_file", "model.onnx") in calls
    shapes = [call for call in calls if call[1] == "set_shape"]
    assert shapes == [
        ("IOptimizationProfile", "set_shape", "x", (1, 8), (4, 8), (16, 8)),
        ("IOptimizationProfile", "set_shape", "mask", (1, 1), (4, 10), (16, 36)),
        ("IOptimizationProfile", "set_shape", "x", (1, 8), (1, 8), (1, 8)),
        ("IOptimizationProfile", "set_shape", "mask", (1, 1), (1, 9), (1, 33)),
    ]
    assert sum(call[1] == "add_optimization_profile" for call in calls) == 2
    assert ("Builder", "build_serialized_network") in said
    config = {call[1]: call[2:] for call in calls if call[0].endswith("BuilderConfig")}
    assert repr(config["clear_flag"]) == "(BuilderFlag.TF32,)"
    pools = [repr(call[2:]) for call in calls if call[1] == "set_memory_pool_limit"]
    assert pools == [
        f"(MemoryPoolType.WORKSPACE, {1 << 26})", f"(MemoryPoolType.TACTIC_DRAM, {1 << 27})",
        f"(MemoryPoolType.TACTIC_SHARED_MEMORY, {1 << 14})",
    ]  # fmt: skip
    assert [repr(call[2]).partition(".")[2] for call in calls if call[1] == "set_flag"] == [
        "SPARSE_WEIGHTS", "STRIP_PLAN", "WEIGHT_STREAMING", "VERSION_COMPATIBLE",
        "EXCLUDE_LEAN_RUNTIME", "REFIT",
    ]  # fmt: skip
    assert repr(config["profiling_verbosity"]) == "(ProfilingVerbosity.DETAILED,)"
    level = repr(config["hardware_compatibility_level"])
    assert level == "(HardwareCompatibilityLevel.AMPERE_PLUS,)"
    assert config["max_aux_streams"] == (1,)
    assert config["builder_optimization_level"] == (2,)
    assert type(config["progress_monitor"][0]).__name__ == "Monitor"


def _flags(calls: list) -> int:
    return next(call[2] for call in calls if call[1] == "create_network")


def _tensorrt_10(code: Code) -> None:
    result, calls, events, written = run(code, "10.8.0.43", request("tensorrt"))
    _common(calls)
    assert _flags(calls) == 1 << 3  # the double's number of STRONGLY_TYPED
    assert written == b"plan"
    assert result["version"] == "10.8.0.43"
    network = result["network"]
    assert network["layers"] == 7
    assert network["inputs"][0] == {"name": "x", "dtype": "float16", "shape": ["batch", 8]}
    assert network["outputs"] == [{"name": "y", "dtype": "float16", "shape": ["rows", 4]}]
    assert network["kinds"] == {"CONDITION": 2, "GATHER": 5}
    assert (network["dtypes"], network["conditionals"]) == ({"float16": 4}, 2)
    shapes = {name: [list(shape) for shape in SHAPES[name]] for name in ("x", "mask")}
    assert network["ranges"] == [shapes, shapes]
    phases = [(e["name"], e["done"], e["steps"]) for e in events if e["event"] == "phase"]
    assert phases == [("Building", 0, 2), ("Building", 1, 2)]
    logged = [(e["severity"], e["text"][:6]) for e in events if e["event"] == "log"]
    assert [kind for kind, _ in logged] == ["INTERNAL_ERROR", "INTERNAL_ERROR", "ERROR"]


def _tensorrt_11(code: Code) -> None:
    _, calls, _, _ = run(code, "11.4.0.106", request("tensorrt"))
    _common(calls)
    assert _flags(calls) == 0


def _rtx(code: Code) -> None:
    _, calls, _, _ = run(code, "1.7.1.116", request("tensorrt-rtx"))
    _common(calls)
    assert _flags(calls) == 0
    config = [(call[1], *map(str, call[2:])) for call in calls if call[0] == "RtxBuilderConfig"]
    assert ("num_compute_capabilities", "2") in config
    assert [call[1:] for call in config if call[0] == "set_compute_capability"] == [
        ("ComputeCapability.SM120", "0"), ("ComputeCapability.SM86", "1"),
    ]  # fmt: skip


def _options_left_out(code: Code) -> None:
    bare = request(
        "tensorrt", tf32=True, memory={}, optimization_level=None, aux_streams=None, switches=[],
        refit="none", profiling_verbosity=None, hardware_compatibility="none",
    )  # fmt: skip
    _, calls, _, _ = run(code, "11.0.0", bare)
    called = {call[1] for call in calls if call[0] == "IBuilderConfig"}
    assert called == {"progress_monitor", "add_optimization_profile"}


def _kernels_in_the_engine(code: Code) -> None:
    for version, flags in (("10.8.0.43", 1 << 3), ("10.16.1", 1 << 3 | 1 << 4), ("11.4.0", 1 << 4)):
        trt, _ = made(version, {})
        assert code.network._network_flags(trt, request("tensorrt", plugin="aot")) == flags


def _other_words(code: Code) -> None:
    for said, name in (("none", "NONE"), ("layer_names", "LAYER_NAMES_ONLY")):
        asked = request(
            "tensorrt", profiling_verbosity=said, refit="identical",
            hardware_compatibility="same_compute_capability",
        )  # fmt: skip
        _, calls, _, _ = run(code, "11.4.0.106", asked)
        values = {call[1]: str(call[2]) for call in calls if call[0] == "IBuilderConfig"}
        assert values["profiling_verbosity"] == f"ProfilingVerbosity.{name}"
        assert values["set_flag"] == "BuilderFlag.REFIT_IDENTICAL"
        level = values["hardware_compatibility_level"]
        assert level == "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"
    message = failure(lambda: run(code, "10.8.0.43", asked), CapabilityError)
    assert message.startswith("TensorRT 10.8.0.43 has no hardware compatibility same_compute")


class _ParserError:
    """Has the members of ``api.ParserError`` and no others."""

    def desc(self) -> str:
        return "Assertion failed: (a): it will not do."

    def node_name(self) -> str:
        return "n"

    def node_operator(self) -> str:
        return "Slice"

    def local_function_stack(self) -> list[str]:
        return ["Outer", "Inner"]


def _refused_by_the_parser(code: Code) -> None:
    message = failure(
        lambda: run(code, "11.0.0", request("tensorrt"), **{
            "OnnxParser.parse_from_file": lambda model: False, "OnnxParser.num_errors": 1,
            "OnnxParser.get_error": lambda index: _ParserError(),
        })
    )  # fmt: skip
    assert message.endswith("node 'n' (Slice) in function Inner: it will not do")


def _refused_by_the_builder(code: Code) -> None:
    nothing = {"Builder.build_serialized_network": lambda network, config: None}
    message = failure(lambda: run(code, "11.0.0", request("tensorrt"), **nothing))
    assert message == "the engine builder failed: out of luck"


class Cache:
    """Has the members of ``api.ITimingCache`` and no others; its bytes are names of kernels."""

    def __init__(self, kernels: bytes) -> None:
        self.kernels = kernels

    def serialize(self) -> bytes:
        return self.kernels

    def combine(self, input_cache: Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.kernels += input_cache.kernels
        return True


def cached(code: Code, folder: Path, *, strict: bool = False, **answers: Any) -> tuple[Any, list]:
    """A build that times one kernel, with the cache in a folder."""
    file = str(folder / "of-{version}.timing")
    asked = request("tensorrt", timing_cache=file, timing_cache_strict=strict)
    attached: list[Cache] = []

    def build(network: Any, config: Any) -> bytes:
        attached[-1].kernels += b"" if strict else b"+gemm"
        return b"plan"

    def attach(cache: Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        attached.append(cache)
        return not cache.kernels.startswith(b"other")

    answers = {
        "Builder.build_serialized_network": build,
        "IBuilderConfig.create_timing_cache": Cache, "IBuilderConfig.set_timing_cache": attach,
        **answers,
    }  # fmt: skip
    result, calls, _, _ = run(code, "11.4.0", asked, **answers)
    return result, calls


def _timing_cache(code: Code) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "made"
        file = folder / "of-11.4.0.timing"
        result, _ = cached(code, folder)
        assert result["timing_cache"] == {"path": str(file), "before": 0, "after": 5}
        assert file.read_bytes() == b"+gemm"
        file.write_bytes(b"other GPU")
        result, _ = cached(code, folder)
        assert "is of another GPU or version" in result["notes"][0]

        def meanwhile(network: Any, config: Any) -> bytes:
            file.write_bytes(b"+conv")
            return b"plan"

        file.write_bytes(b"+old")
        cached(code, folder, **{"Builder.build_serialized_network": meanwhile})
        assert file.read_bytes() == b"+conv"  # nothing new of ours: what is there is left
        file.write_bytes(b"+old")
        result, calls = cached(code, folder, strict=True)
        flags = [str(call[2]) for call in calls if call[1] == "set_flag"]
        assert flags[-1] == "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS"
        assert file.read_bytes() == b"+old"
        file.write_bytes(b"other GPU")
        assert "is not of this GPU" in failure(lambda: cached(code, folder, strict=True))
        file.unlink()
        assert "there is no timing cache at" in failure(lambda: cached(code, folder, strict=True))


def _merged_timing_cache(code: Code) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "of-11.4.0.timing"
        file.write_bytes(b"+old")
        caches: list[Cache] = []

        def create(kernels: bytes) -> Cache:
            caches.append(Cache(kernels))
            return caches[-1]

        def build(network: Any, config: Any) -> bytes:
            caches[0].kernels += b"+gemm"
            file.write_bytes(b"+old+conv")  # by another build
            return b"plan"

        answers = {
            "IBuilderConfig.create_timing_cache": create,
            "Builder.build_serialized_network": build,
        }
        cached(code, Path(name), **{"IBuilderConfig.set_timing_cache": True, **answers})
        assert file.read_bytes() == b"+old+gemm+old+conv"  # both; TensorRT keeps one of each


def _library(code: Code) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        library = SimpleNamespace(getCreators=None)
        patched.setattr(code.plugging.ctypes, "CDLL", lambda path, mode: library)
        file = Path(name) / "plugin.so"
        file.touch()
        patched.setenv("TOOLKIT_PLUGIN_LIBRARY", str(file))
        asked = request("tensorrt", plugin="library")
        handle = {"IPluginRegistry.load_library": lambda path: "handle"}
        result, calls, _, _ = run(code, "11.4.0", asked, **handle)
        assert ("IPluginRegistry", "load_library", str(file)) in calls
        assert ("IBuilderConfig", "plugins_to_serialize", [str(file)]) in calls
        assert result["carries_plugins"] is True
        refused = {"IPluginRegistry.load_library": lambda path: None}
        message = failure(lambda: run(code, "11.4.0", asked, **refused))
        assert message.startswith("TensorRT 11.4.0 refuses the plugin library")
        del library.getCreators  # one that registers itself
        result, calls, _, _ = run(code, "11.4.0", asked, **handle)
        assert result["carries_plugins"] is False
        assert all(call[1] != "plugins_to_serialize" for call in calls)


ENGINE = {
    "ICudaEngine.num_io_tensors": 2, "ICudaEngine.num_layers": 5, "ICudaEngine.refittable": True,
    "ICudaEngine.num_optimization_profiles": 2, "ICudaEngine.num_aux_streams": 3,
    "ICudaEngine.streamable_weights_size": 1024,
    "ICudaEngine.get_tensor_name": lambda index: "xy"[index],
    "ICudaEngine.get_tensor_dtype": lambda name: SimpleNamespace(name="HALF"),
    "ICudaEngine.get_tensor_shape": lambda name: (-1, 8),
    "ICudaEngine.get_tensor_profile_shape": lambda name, index: [(n + index, 8) for n in (1, 4, 9)],
    "ICudaEngine.get_device_memory_size_for_profile_v2": lambda index: 100 + index,
    "EngineInspector.get_engine_information": str,
}  # fmt: skip


def opened(code: Code, **answers: Any) -> tuple[Any, list]:
    modes = {"x": "INPUT", "y": "OUTPUT"}
    mode = {"ICudaEngine.get_tensor_mode": lambda name: getattr(trt.TensorIOMode, modes[name], 0)}
    trt, calls = made("11.4.0", {**ENGINE, **mode, **answers})
    with tempfile.TemporaryDirectory() as name:
        plan = Path(name) / "model.plan"
        plan.write_bytes(b"plan")
        asked = {"job": "read", "flavour": "tensorrt", "plan": str(plan), "host_code": True}
        logger = code.worker._logger(trt, lambda event: None)
        logger.log(trt.ILogger.Severity.ERROR, "IRuntime::x: Error Code 1: of another version")
        return code.opening.open_engine(trt, asked, logger), calls


def _opened(code: Code) -> None:
    found, calls = opened(code)
    assert found["version"] == "11.4.0"
    assert ("Runtime", "engine_host_code_allowed", True) in calls
    assert ("Runtime", "deserialize_cuda_engine", b"plan") in calls
    assert found["inputs"] == [{"name": "x", "dtype": "float16", "shape": [None, 8]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float16", "shape": [None, 8]}]
    assert found["ranges"][1] == {"x": [[2, 8], [5, 8], [10, 8]]}
    assert found["memory"] == [100, 101]
    assert (found["streamable"], found["refittable"], found["aux_streams"]) == (1024, True, 3)
    assert (found["layers"], found["information"]) == (5, "LayerInformationFormat.JSON")
    message = failure(
        lambda: opened(code, **{"Runtime.deserialize_cuda_engine": lambda data: None})
    )
    assert message == "TensorRT 11.4.0 does not open the plan: of another version"


def _refused_range(code: Code) -> None:
    refused = {"IBuilderConfig.add_optimization_profile": lambda profile: -1}
    message = failure(lambda: run(code, "11.0.0", request("tensorrt"), **refused))
    assert message.startswith("the builder refused the shape ranges")


def _deciding_input(code: Code) -> None:
    deciding = {
        "INetworkDefinition.get_input": lambda index: Tensor("size", (2,), ("",), deciding=True)
    }
    message = failure(lambda: run(code, "11.0.0", request("tensorrt"), **deciding))
    assert "the values of input 'size' decide the shape" in message


def _old_release(code: Code) -> None:
    message = failure(lambda: run(code, "10.7.0", request("tensorrt")), CapabilityError)
    assert message.startswith("TensorRT 10.7.0 is not supported")


def _unknown_architecture(code: Code) -> None:
    asked = request("tensorrt-rtx", compute_capabilities=["5.2"])
    message = failure(lambda: run(code, "1.7.1", asked))
    assert message == "TensorRT-RTX 1.7.1 does not know compute capability 5.2"


def failure(call: Callable[[], Any], kind: type = EngineError) -> str:
    """The message of the error that a call must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing failed")


SCENARIOS = (
    _tensorrt_10, _tensorrt_11, _rtx, _options_left_out, _kernels_in_the_engine, _other_words,
    _timing_cache, _merged_timing_cache, _library, _opened, _refused_by_the_parser,
    _refused_by_the_builder, _refused_range, _deciding_input, _old_release, _unknown_architecture,
)  # fmt: skip

SOURCES = {
    name: Path(__file__).parents[2] / "toolkit" / "engine" / f"{name}.py"
    for name in (
        "network",
        "configuring",
        "readback",
        "timing",
        "plugging",
        "opening",
        "worker",
        "diagnosis",
    )
}
