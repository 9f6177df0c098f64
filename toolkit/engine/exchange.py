"""The calls that give an engine new weights, one code path for both flavours and both majors.

As in ``toolkit.engine.network`` the module comes in as the argument ``trt``: only the worker
process loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.engine.api import IHostMemory
from toolkit.engine.refit_api import Module, Refitter
from toolkit.errors import EngineError

__all__ = ["exchange"]

_Array = npt.NDArray[Any]
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64",
    "INT32": "int32", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_REBUILD = "toolkit build BUNDLE builds the engine again"


def exchange(
    trt: Module, plan: bytes, weights: Mapping[str, _Array], changed: Sequence[str],
    logger: Any,
) -> IHostMemory:  # fmt: skip
    """The plan with new weights.

    Only what has changed is given, and what the builder combined it with.

    Args:
        trt: The module ``tensorrt`` or ``tensorrt_rtx``.
        plan: The old plan.
        weights: Every weight of the ONNX file with the new values, by name.
        changed: Those that have changed.
        logger: A ``trt.ILogger``; it must remember the last error as ``last_error``.

    Raises:
        EngineError: If the plan is refused, takes no other weights, or not one of these.
    """
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"the plan is refused: {_reason(logger)}", hint=_REBUILD)
    if not engine.refittable:
        raise EngineError(
            "the engine takes no other weights: it was not built to be refitted", hint=_REBUILD
        )
    refitter = trt.Refitter(engine, logger)
    known = set(refitter.get_all_weights())
    lost = [name for name in changed if name not in known]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise EngineError(
            f"{lost[0]}{more} has changed and is no weight of the engine: its builder folded it",
            hint=_REBUILD,
        )
    kept: list[_Array] = []  # TensorRT reads them when it refits
    given: set[str] = set()
    wanted = list(changed)
    while wanted:
        kept += [_give(trt, refitter, name, weights) for name in wanted]
        given.update(wanted)
        wanted = [name for name in refitter.get_missing_weights() if name not in given]
    if not refitter.refit_cuda_engine():
        raise EngineError(f"the engine refuses its new weights: {_reason(logger)}", hint=_REBUILD)
    made = engine.serialize()
    if made is None:
        raise EngineError(f"the refitted engine cannot be written: {_reason(logger)}")
    return made


def _reason(logger: Any) -> str:
    return logger.last_error or "no reason is given"


def _give(trt: Module, refitter: Refitter, name: str, weights: Mapping[str, _Array]) -> _Array:
    if name not in weights:
        raise EngineError(
            f"the engine wants {name} as well, which is no weight of the graph", hint=_REBUILD
        )
    array = np.ascontiguousarray(weights[name])
    asked = refitter.get_weights_prototype(name)
    dtype = _DTYPES.get(asked.dtype.name, asked.dtype.name.lower())
    if (asked.size, dtype) != (array.size, array.dtype.name):
        raise EngineError(
            f"{name}: found {array.size} numbers of {array.dtype.name}, the engine wants "
            f"{asked.size} of {dtype}",
            hint=_REBUILD,
        )
    if not refitter.set_named_weights(
        name, trt.Weights(asked.dtype, array.ctypes.data, array.size)
    ):
        raise EngineError(f"the engine refuses the new value of {name}", hint=_REBUILD)
    return array
