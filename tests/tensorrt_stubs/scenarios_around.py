"""What stands around a build: the timing cache, plugin libraries, and opening the plan."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tensorrt_stubs.double import made
from tests.tensorrt_stubs.playing import Code, failure, request, run

__all__ = ["AROUND"]


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


AROUND = (_timing_cache, _merged_timing_cache, _library, _opened)
