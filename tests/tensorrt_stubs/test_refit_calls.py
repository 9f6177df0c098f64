"""Refitting an engine, on a double that has the real names and takes weights from memory."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.tensorrt_stubs.double import made
from tests.tensorrt_stubs.misspelling import mutants, survives
from tests.tensorrt_stubs.playing import failure
from toolkit.engine import exchange, refit_api, refit_worker

NUMPYS = {"size", "dtype"}  # of arrays, too, which NumPy would miss
WEIGHTS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float16)[::-1],
    "c": np.array([7, 8], np.int64),
}
TYPES = {"a": ("FLOAT", 6), "b": ("HALF", 4), "c": ("INT64", 2), "d": ("FLOAT", 1)}


class Engine:
    """The weights that the double was given, by name."""

    def __init__(self, missing=("b",)) -> None:
        self.given: dict[str, bytes] = {}
        self.missing = list(missing)

    def answers(self, **others: Any) -> dict[str, Any]:
        return {
            "ICudaEngine.refittable": True,
            "ICudaEngine.serialize": lambda: b"new plan",
            "Refitter.get_all_weights": lambda: list(TYPES),
            "Refitter.get_missing_weights": lambda: [
                name for name in self.missing if name not in self.given
            ],
            "Refitter.get_weights_prototype": self._prototype,
            "Refitter.set_named_weights": self._take,
            "Weights.__init__": lambda kind, address, count: (kind.name, address, count),
            **others,
        }

    def _prototype(self, name: str) -> Any:
        kind, size = TYPES[name]
        return SimpleNamespace(dtype=SimpleNamespace(name=kind), size=size)

    def _take(self, name: str, weights: Any) -> bool:
        kind, address, count = weights
        assert (kind, count) == TYPES[name]
        self.given[name] = ctypes.string_at(address, WEIGHTS[name].nbytes)
        return True


def run(code: Any, engine: Engine, changed: Any = ("a",), **others: Any) -> Any:
    trt, calls = made("11.4.0.106", engine.answers(**others), source=refit_api)
    logger = code.worker.make_logger(trt)
    severity = trt.ILogger.Severity
    logger.log(severity.VERBOSE, "not told")
    logger.log(severity.ERROR, "told")
    logger.log(severity.INTERNAL_ERROR, "out of luck")
    return code.exchange.exchange(trt, b"plan", WEIGHTS, changed, logger), calls


def gives_what_changed_and_what_is_missing(code: Any) -> None:
    engine = Engine()
    plan, calls = run(code, engine)
    assert plan == b"new plan"
    assert engine.given == {n: np.ascontiguousarray(WEIGHTS[n]).tobytes() for n in ("a", "b")}
    assert ("Runtime", "deserialize_cuda_engine", b"plan") in calls
    assert [call[1] for call in calls if call[0] == "Refitter"][-1] == "refit_cuda_engine"


def says_what_does_not_fit(code: Any) -> None:
    def error(engine: Any = None, changed: Any = ("a",), **others: Any) -> str:
        return failure(lambda: run(code, engine or Engine(), changed, **others))

    refused = {"Runtime.deserialize_cuda_engine": lambda plan: None}
    assert error(**refused) == "the plan is refused: out of luck"
    fixed = {"ICudaEngine.refittable": False}
    assert error(**fixed).startswith("the engine takes no other weights")
    assert error(changed=["x", "a", "y"]).startswith("x and 1 more has changed and is no weight")
    assert error(Engine(missing=["d"])).startswith("the engine wants d as well")
    short = {"Refitter.get_weights_prototype": lambda name: Engine()._prototype("c")}
    assert error(**short) == "a: found 6 numbers of float32, the engine wants 2 of int64"
    taken = {"Refitter.set_named_weights": lambda name, weights: False}
    assert error(**taken) == "the engine refuses the new value of a"
    failed = {"Refitter.refit_cuda_engine": lambda: False}
    assert error(**failed) == "the engine refuses its new weights: out of luck"
    unwritten = {"ICudaEngine.serialize": lambda: None}
    assert error(**unwritten) == "the refitted engine cannot be written: out of luck"


SCENARIOS = (gives_what_changed_and_what_is_missing, says_what_does_not_fit)
REAL = SimpleNamespace(exchange=exchange, worker=refit_worker)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_an_engine(scenario):
    scenario(REAL)


def test_no_name_can_be_misspelled_unseen():
    tried: list[str] = []
    unseen: list[str] = []
    for part, real in vars(REAL).items():
        for word, module in mutants(Path(real.__file__), real.__name__):
            if word not in NUMPYS and (part, word) != ("worker", "Weights"):  # graphs.Weights
                tried.append(word)
                if survives(SCENARIOS, SimpleNamespace(**{**vars(REAL), part: module})):
                    unseen.append(f"{part}: {word}")
    assert unseen == []
    assert {"refittable", "get_missing_weights", "Weights", "serialize", "ERROR"} <= set(tried)
