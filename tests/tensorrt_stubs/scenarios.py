"""Builds with the recording double: what must have been called, for every flavour and major."""

from __future__ import annotations

from pathlib import Path

from tests.tensorrt_stubs.double import made
from tests.tensorrt_stubs.playing import SHAPES, Code, Tensor, failure, request, run
from tests.tensorrt_stubs.scenarios_around import AROUND
from toolkit.errors import CapabilityError

__all__ = ["SCENARIOS", "SOURCES"]


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


SCENARIOS = (
    _tensorrt_10, _tensorrt_11, _rtx, _options_left_out, _kernels_in_the_engine, _other_words,
    _refused_by_the_parser,
    _refused_by_the_builder, _refused_range, _deciding_input, _old_release, _unknown_architecture,
    *AROUND,
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
