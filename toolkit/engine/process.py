"""Start the builder process, follow what it says, and end it when it must end."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import toolkit
from toolkit.engine.choices import TITLES
from toolkit.engine.diagnosis import crash
from toolkit.engine.messages import Event, Failure, Opened, ReadRequest, Request, Result
from toolkit.errors import CapabilityError, EngineError
from toolkit.progress import Progress

__all__ = ["COMMAND", "BuildProcess"]

COMMAND = (sys.executable, "-m", "toolkit.engine.worker")

_LOG = logging.getLogger(__name__)


@dataclass
class BuildProcess:
    """One run of the builder, or of the runtime that opens a plan, in a process of its own.

    Attributes:
        request: What to build or open.
        time_limit: Seconds after which the process is killed.
        progress: Told of the builder's phases.
        phase: The phase the builder was last seen in.
        answer: The process's last word, when it has given one.
        late: Whether the time limit ended it.
    """

    request: Request | ReadRequest
    time_limit: float
    progress: Progress
    phase: str = ""
    answer: Failure | Result | Opened | None = None
    late: bool = False

    def run(self) -> Result | Opened:
        """Build or open; returns what the worker read back.

        Raises:
            CapabilityError: If TensorRT does not load or is of an unsupported release.
            EngineError: If the build fails, crashes or takes too long.
        """
        with tempfile.TemporaryFile("w+", errors="replace") as stderr:
            code = self._follow(stderr)
            stderr.seek(0)
            said = stderr.read()
        if self.answer is None:
            raise self._timeout() if self.late else self._crash(code, said)
        if self.answer["event"] == "failure":
            raise _error(self.answer)
        return self.answer

    def _follow(self, stderr: IO[str]) -> int:
        with _worker(stderr) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            limit = threading.Timer(self.time_limit, self._expire, [process])
            limit.start()
            try:
                # A worker that is dead already has no reader; its return code says why.
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(self.request) + "\n")
                    process.stdin.flush()
                for line in process.stdout:
                    self._take(json.loads(line))
                return process.wait()
            finally:
                limit.cancel()

    def _expire(self, process: subprocess.Popen[str]) -> None:
        self.late = True
        process.kill()

    def _take(self, event: Event) -> None:
        if event["event"] == "phase":
            self.phase = event["name"]
            self.progress(event["name"], event["done"], event["steps"])
        elif event["event"] == "log":
            _LOG.debug("%s: %s", event["severity"], event["text"])
        else:
            self.answer = event

    def _timeout(self) -> EngineError:
        where = f", in the phase {self.phase!r}" if self.phase else ""
        return EngineError(
            f"the {self._name} was stopped at its time limit of {self.time_limit:g} s{where}",
            hint="allow more time, or lower the optimization level",
        )

    def _crash(self, code: int, said: str) -> EngineError:
        return crash(self._name, code, self.phase, said)

    @property
    def _name(self) -> str:
        kind = "builder" if self.request["job"] == "build" else "runtime"
        return f"{TITLES[self.request['flavour']]} {kind}"


@contextmanager
def _worker(stderr: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The worker; killed if it still runs when the block ends, as on Ctrl-C."""
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        # ``python -m`` imports from the working folder first; let that be this package's own.
        cwd=Path(toolkit.__file__).parent.parent,
        start_new_session=True,  # Ctrl-C reaches this process only, and it ends the worker
    )
    with contextlib.suppress(BrokenPipeError), process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _error(failure: Failure) -> EngineError | CapabilityError:
    kind = CapabilityError if failure["kind"] == "capability" else EngineError
    return kind(failure["message"], hint=failure["hint"])
