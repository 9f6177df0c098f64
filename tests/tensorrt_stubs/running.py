"""An engine that computes, on memory of the host: what running one must call, and with what."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.tensorrt_stubs.double import made
from tests.tensorrt_stubs.playing import failure
from toolkit.runtime import tensorrt_api

__all__ = ["RUNS", "Host", "Machine"]

STREAM = 77
SHAPES = {"x": (-1, 4), "ids": (-1,), "y": (-1, 4), "found": (-1,)}
TYPES = {"x": "HALF", "ids": "INT64", "y": "FLOAT", "found": "INT64"}
PROFILES = {
    "x": [((1, 4), (4, 4), (16, 4)), ((1, 4), (1, 4), (1, 4))],
    "ids": [((0,), (4,), (16,)), ((1,), (1,), (1,))],
}


class _Bytes:
    def __init__(self, nbytes: int) -> None:
        self._array = np.full(max(nbytes, 1), 0xCD, np.uint8)

    @property
    def address(self) -> int:
        return self._array.ctypes.data

    @property
    def nbytes(self) -> int:
        return self._array.size

    def write(self, array: np.ndarray) -> None:
        data = np.frombuffer(array.tobytes(), np.uint8)
        assert data.size <= self._array.size
        self._array[: data.size] = data

    def read(self, nbytes: int) -> bytes:
        assert nbytes <= self._array.size
        return self._array[:nbytes].tobytes()


class Host:
    """A device whose memory the test can look into."""

    stream = STREAM

    def __init__(self, replay: Callable[[], None] | None = None) -> None:
        self.replay = replay
        self.replayed = 0

    def buffer(self, nbytes: int) -> _Bytes:
        return _Bytes(nbytes)

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        call()
        if self.replay is None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        def again() -> None:
            self.replayed += 1
            self.replay()

        return again


class Machine:
    """A double whose engine doubles ``x`` and finds the places of what is not 0 in ``ids``."""

    def __init__(self, late: bool = True, **answers: Any) -> None:
        self.names = ["x", "ids", "y", *(["found"] if late else [])]
        self.at: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.allocator: Any = None
        self.trt, self.calls = made(
            "11.4.0.106", {**self._answers(), **answers}, source=tensorrt_api
        )

    def _answers(self) -> dict[str, Any]:
        def mode(name: str) -> Any:
            modes = self.trt.TensorIOMode
            return modes.INPUT if name in PROFILES else modes.OUTPUT

        return {
            "ICudaEngine.num_io_tensors": len(self.names),
            "ICudaEngine.num_optimization_profiles": 2,
            "ICudaEngine.get_tensor_name": lambda index: self.names[index],
            "ICudaEngine.get_tensor_mode": mode,
            "ICudaEngine.get_tensor_dtype": lambda name: SimpleNamespace(name=TYPES[name]),
            "ICudaEngine.get_tensor_shape": lambda name: SHAPES[name],
            "ICudaEngine.get_tensor_profile_shape": lambda name, index: PROFILES[name][index],
            "IExecutionContext.set_input_shape": lambda n, s: self.shapes.update({n: s}) is None,
            "IExecutionContext.set_tensor_address": lambda n, a: self.at.update({n: a}) is None,
            "IExecutionContext.set_output_allocator": self._set_allocator,
            "IExecutionContext.get_tensor_shape": self._shape,
            "IExecutionContext.infer_shapes": lambda: ["ids"] if "ids" not in self.shapes else [],
            "IExecutionContext.execute_async_v3": self.execute,
        }

    def _set_allocator(self, name: str, allocator: Any) -> bool:
        assert name == "found"
        self.allocator = allocator
        return True

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["x"] if name == "y" else (-1,)

    def execute(self, stream: int = STREAM) -> bool:
        assert stream == STREAM
        x = self._read("x", np.float16)
        _write(self.at["y"], 2 * x.astype(np.float32))
        if "found" in self.names:
            places = np.flatnonzero(self._read("ids", np.int64))
            given = self.allocator.reallocate_output("found", 0, places.nbytes, 256)
            _write(self.allocator.reallocate_output_async("found", given, 8, 256, stream), places)
            self.allocator.notify_shape("found", places.shape)
        return True

    def _read(self, name: str, dtype: Any) -> np.ndarray:
        shape = self.shapes[name]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(self.at[name], size), dtype).reshape(shape)


def _write(address: int, array: np.ndarray) -> None:
    ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)


def run_one(code: SimpleNamespace, machine: Machine, host: Host, feeds: Any, **more: Any) -> Any:
    """What a runner of ``code.engine`` makes of feeds."""
    with runner(code, machine, host, **more) as entered:
        return entered(feeds)


def runner(code: SimpleNamespace, machine: Machine, host: Host, **more: Any) -> Any:
    """A runner of a plan that nobody built."""
    return code.engine.TrtRunner(
        Path(__file__), "tensorrt", load=lambda _: machine.trt, device=lambda: host, **more
    )


def feeds_of(rows: int, ids: list[int]) -> dict[str, np.ndarray]:
    """Both inputs; ``x`` is wider than the engine declares."""
    return {
        "x": np.arange(4 * rows, dtype=np.float32).reshape(rows, 4) / 8,
        "ids": np.array(ids, np.int64), "more": np.zeros(3),
    }  # fmt: skip


def holds(outputs: Any, feeds: Any) -> None:
    """Outputs are what the engine of the double computes."""
    np.testing.assert_array_equal(outputs["y"], 2 * feeds["x"])
    assert outputs["y"].dtype == np.float32
    if "found" in outputs:
        np.testing.assert_array_equal(outputs["found"], np.flatnonzero(feeds["ids"]))


def _runs(code: SimpleNamespace) -> None:
    machine, feeds = Machine(), feeds_of(3, [0, 7, 0, 9, 1])
    with runner(code, machine, Host()) as entered:
        assert [str(spec) for spec in entered.inputs] == ["float16[x_0, 4]", "int64[ids_0]"]
        holds(entered(feeds), feeds)
        one = feeds_of(1, [5])
        holds(entered(one), one)
        holds(entered(feeds), feeds)
    asked = [call[2:] for call in machine.calls if call[1] == "set_optimization_profile_async"]
    assert asked == [(1, STREAM)]  # the narrow one, whose context is kept
    assert sum(call[1] == "create_execution_context" for call in machine.calls) == 2
    assert machine.calls[0] == ("ILogger", "__init__")


def _gives_empty_outputs(code: SimpleNamespace) -> None:
    feeds = feeds_of(1, [])
    found = run_one(code, Machine(), Host(), feeds)
    assert found["found"].shape == (0,)
    holds(found, feeds)


def _captures(code: SimpleNamespace) -> None:
    machine = Machine(late=False)
    host = Host(machine.execute)
    first, second = feeds_of(2, [1]), feeds_of(2, [0])
    second["x"] += 1
    with runner(code, machine, host, cuda_graph=True) as entered:
        holds(entered(first), first)
        assert entered.captured == "captured"
        holds(entered(second), second)
    assert host.replayed == 1
    assert sum(call[1] == "execute_async_v3" for call in machine.calls) == 2


def _says_what_cannot_be_captured(code: SimpleNamespace) -> None:
    feeds = feeds_of(2, [1])
    for machine, reason in (
        (Machine(late=False), "operation not permitted when stream is capturing"),
        (Machine(), "outputs whose shape follows from values"),
    ):
        with runner(code, machine, Host(), cuda_graph=True) as entered:
            holds(entered(feeds), feeds)
            assert entered.captured == f"not captured: {reason}"
            holds(entered(feeds), feeds)


def _shares_its_engine(code: SimpleNamespace) -> None:
    machine, feeds = Machine(), feeds_of(2, [1])
    with runner(code, machine, Host()) as entered:
        with entered.share() as other:
            holds(other(feeds), feeds)
        holds(entered(feeds), feeds)
    assert sum(call[1] == "deserialize_cuda_engine" for call in machine.calls) == 1
    assert sum(call[1] == "create_execution_context" for call in machine.calls) == 2


def _fails_in_words(code: SimpleNamespace) -> None:
    feeds = feeds_of(2, [1])

    def error_of(feeds: Any, **answers: Any) -> str:
        return failure(lambda: run_one(code, Machine(**answers), Host(), feeds))

    assert error_of(feeds_of(17, [1])).startswith(
        "no profile of the engine has the shapes x [17, 4], ids [1]"
    )
    refused = {"Runtime.deserialize_cuda_engine": lambda plan: None}
    assert error_of(feeds, **refused) == (
        "tensorrt 11.4.0.106 refuses running.py: without a reason"
    )
    failed = {"IExecutionContext.execute_async_v3": lambda stream: False}
    assert error_of(feeds, **failed) == "tensorrt failed to run running.py: no reason"
    unknown = {"IExecutionContext.infer_shapes": lambda: ["ids"]}
    assert error_of(feeds, **unknown) == "tensorrt cannot tell its shapes without ids"
    for name, what in {
        "set_input_shape": "shape [2, 4] of 'x'", "set_tensor_address": "memory for 'x'",
        "set_output_allocator": "memory for 'found'",
    }.items():  # fmt: skip
        answers = {f"IExecutionContext.{name}": lambda *_: False}
        assert error_of(feeds, **answers) == f"the engine refuses the {what}"


def _remembers_the_last_error(code: SimpleNamespace) -> None:
    trt = Machine().trt
    logger = code.parts.make_logger(trt)
    severity = trt.ILogger.Severity
    for level in (severity.ERROR, severity.VERBOSE, severity.INTERNAL_ERROR, severity.VERBOSE):
        logger.log(level, f"said {level!r}")
    assert logger.last_error == "said Severity.INTERNAL_ERROR"
    logger.log(severity.ERROR, "worse")
    assert logger.last_error == "worse"


RUNS = (_runs, _gives_empty_outputs, _captures, _says_what_cannot_be_captured,
        _shares_its_engine, _fails_in_words, _remembers_the_last_error)  # fmt: skip
