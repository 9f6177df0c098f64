"""One build with the recording double: what is asked, what the double answers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.tensorrt_stubs.double import made
from toolkit.engine.choices import SWITCHES
from toolkit.errors import EngineError

__all__ = ["SHAPES", "Code", "Tensor", "failure", "request", "run"]

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


def failure(call: Callable[[], Any], kind: type = EngineError) -> str:
    """The message of the error that a call must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing failed")
