"""The process the builder runs in: ``python -m toolkit.engine.worker``.

Reads one :class:`~toolkit.engine.messages.Request` or ``ReadRequest`` as a JSON line, answers
with JSON lines of :data:`~toolkit.engine.messages.Event` on standard output, the last of which is
a failure or a result. Building happens here and never in the parent, because NVIDIA's builder
answers some graphs with a segmentation fault.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from toolkit.engine.api import Member, Module
from toolkit.engine.choices import TITLES, Flavour
from toolkit.engine.diagnosis import builder_message
from toolkit.engine.messages import Failure, Opened, ReadRequest, Request, Result
from toolkit.engine.network import build
from toolkit.engine.opening import open_engine
from toolkit.engine.requirements import MODULES
from toolkit.errors import CapabilityError, EngineError, ToolkitError

__all__ = ["main"]

Emit = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Answer one request."""
    request: Request | ReadRequest = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    emit = _emitter(_claim_stdout())
    try:
        emit(_answer(request, emit))
    except ToolkitError as error:
        emit(_failure(error))


def _exit_with_parent() -> None:
    # The parent keeps the pipe open, silent, as long as it lives and however it dies. Read past
    # ``sys.stdin``, whose lock would be held by this thread when the interpreter ends.
    os.read(0, 1)
    os._exit(1)


def _claim_stdout() -> IO[str]:
    """Keep standard output for events; whatever native code prints goes to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return events


def _emitter(stream: IO[str]) -> Emit:
    lock = threading.Lock()  # the builder may log from its own threads

    def emit(event: Mapping[str, Any]) -> None:
        with lock:
            stream.write(json.dumps(event) + "\n")

    return emit


def _failure(error: ToolkitError) -> Failure:
    return {
        "event": "failure",
        "kind": "capability" if isinstance(error, CapabilityError) else "engine",
        "message": error.message,
        "hint": error.hint,
    }


def _answer(request: Request | ReadRequest, emit: Emit) -> Result | Opened:
    trt = _load(request["flavour"])
    if request["job"] == "read":
        return open_engine(trt, request, _logger(trt, emit))
    plan = Path(request["plan"])

    def write(data: memoryview) -> None:
        try:
            plan.write_bytes(data)
        except OSError as error:
            raise EngineError(f"cannot write the engine: {error.strerror}") from error

    return build(trt, request, _logger(trt, emit), _monitor(trt, emit), write)


def _load(flavour: Flavour) -> Module:
    try:
        return cast("Module", importlib.import_module(MODULES[flavour]))
    except (ImportError, OSError) as error:
        title = TITLES[flavour]
        raise CapabilityError(
            f"{title} is installed but does not load: {error}",
            hint="its shared libraries are missing or are for another CUDA version",
        ) from error


def _logger(trt: Module, emit: Emit) -> Any:
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Sends what the builder logs, from INFO up, and remembers its last error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, level: Member, text: str) -> None:
            if level == severity.VERBOSE:
                return
            if level == severity.ERROR or (level == severity.INTERNAL_ERROR and "Error" in text):
                self.last_error = text
            emit({"event": "log", "severity": level.name, "text": text})

        def failure(self) -> EngineError:
            return builder_message(self.last_error)

    return Logger()


def _monitor(trt: Module, emit: Emit) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Sends the builder's phases; the innermost one is what it is doing."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            self.steps[name] = steps
            emit({"event": "phase", "name": name, "done": 0, "steps": steps})

        def step_complete(self, name: str, step: int) -> bool:
            steps = self.steps.get(name, 0)
            emit({"event": "phase", "name": name, "done": step + 1, "steps": steps})
            return True

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

    return Monitor()


if __name__ == "__main__":
    main()
