"""Starts the process that measures, and asks it for one point after another."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from toolkit import errors
from toolkit.bench.clock import Memory, Rounds, Timed, Windows
from toolkit.bench.options import BenchOptions
from toolkit.bench.sessions import Job
from toolkit.errors import EngineError

__all__ = ["Measurer"]

_GRACE = 120.0  # seconds for loading, beside the time that measuring may take


class Measurer:
    """Measures in forks of a process of its own; see ``toolkit.bench.worker``."""

    def __init__(self, options: BenchOptions) -> None:
        self.options = options
        self._process: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)

    def __enter__(self) -> Measurer:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "toolkit.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            # Numpy's own threads would be there when it forks, and are needed for nothing.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # the child that measures is ended with it
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, and what it is measuring."""
        process = self._process
        assert process is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._said.close()

    def time(self, job: Job, runtime: str) -> Timed:
        """One graph alone.

        Raises:
            ToolkitError: What loading or running it raised.
        """
        found = self._ask("measure", [[job]], runtime)
        windows = Windows(**{n: _frozen(value) for n, value in found["windows"].items()})
        return Timed(windows, Memory(**found["memory"]), found["load_seconds"])

    def turns(self, first: Sequence[Job], second: Sequence[Job], runtime: str) -> Rounds:
        """Two sides in turns.

        Raises:
            ToolkitError: What loading or running one of the graphs raised.
        """
        found = self._ask("turns", [first, second], runtime)
        return Rounds(tuple(found["first"]), tuple(found["second"]))

    def _ask(self, work: str, sides: Sequence[Sequence[Job]], runtime: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as name:
            folder = Path(name)
            told = {
                "work": work,
                "runtime": runtime,
                "options": asdict(self.options),
                "sides": [
                    [
                        _written(job, folder / f"{side}_{number}.npz")
                        for number, job in enumerate(jobs)
                    ]
                    for side, jobs in enumerate(sides)
                ],
            }
            (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
            code = self._run(folder)
            result = folder / "result.json"
            if code or not result.is_file():
                raise EngineError(
                    f"the process that ran the graph ended with code {code}{self._last_word()}",
                    hint="it may have run out of memory: give a smaller --shape",
                )
            found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if "error" in found:
            raise getattr(errors, found["error"])(found["message"], hint=found["hint"])
        return found

    def _last_word(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def _run(self, folder: Path) -> int:
        """The exit code of what measured in ``folder``."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = self.options.seconds + _GRACE
        with suppress(BrokenPipeError):
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        if not ready:
            raise EngineError(
                f"measuring did not end after {seconds:.0f} seconds", hint="give a smaller --shape"
            )
        line = process.stdout.readline()
        return int(line) if line else process.wait()


def _written(job: Job, path: Path) -> dict[str, Any]:
    np.savez(path, *job.feeds.values())
    return {"path": str(job.path), "names": list(job.feeds), "feeds": str(path)}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
