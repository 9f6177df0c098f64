"""The process an engine is refitted in: ``python -m toolkit.engine.refit_worker``.

Reads one JSON line from standard input and answers with one: ``{}`` once the plan is written, or a
failure. A process of its own, because TensorRT answers some plans with a segmentation fault.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import graphs
from toolkit.engine.choices import TITLES
from toolkit.engine.exchange import exchange
from toolkit.engine.refit_api import Module
from toolkit.engine.requirements import MODULES
from toolkit.errors import CapabilityError, EngineError, ToolkitError

__all__ = ["main", "make_logger"]


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever native code prints goes to standard error
    try:
        _answer(request)
        answers.write(json.dumps({}) + "\n")
    except (ToolkitError, graphs.GraphError) as error:
        kind = "capability" if isinstance(error, CapabilityError) else "engine"
        said = {"kind": kind, "message": error.message, "hint": error.hint}
        answers.write(json.dumps(said) + "\n")


def _answer(request: dict[str, Any]) -> None:
    flavour = request["flavour"]
    try:
        trt = cast("Module", importlib.import_module(MODULES[flavour]))
    except (ImportError, OSError) as error:
        raise CapabilityError(
            f"{TITLES[flavour]} is installed but does not load: {error}",
            hint="its shared libraries are missing or are for another CUDA version",
        ) from error
    weights = graphs.Weights(Path(request["model"]))
    plan = Path(request["plan"]).read_bytes()
    made = exchange(trt, plan, weights, request["changed"], make_logger(trt))
    try:
        Path(request["out"]).write_bytes(memoryview(made))
    except OSError as error:
        raise EngineError(f"cannot write the engine: {error.strerror}") from error


def make_logger(trt: Module) -> Any:
    """An ``ILogger`` with ``last_error``."""
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Remembers the last error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, level: object, text: str) -> None:
            if level in {severity.ERROR, severity.INTERNAL_ERROR}:
                self.last_error = text

    return Logger()


if __name__ == "__main__":
    main()
