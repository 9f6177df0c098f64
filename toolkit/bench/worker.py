"""The process that measures: ``python -m toolkit.bench.worker``.

It imports what is needed and waits. For every folder named on its standard input it forks; the
child reads ``job.json`` there, measures, writes ``result.json`` and ends, so that no thread, cache
or memory of one point is there at the next, and nothing has to be imported again. A line on the
standard output then says how the child ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bench import memory
from toolkit.bench.clock import Call, time_rounds, time_windows
from toolkit.bench.options import BenchOptions
from toolkit.bench.sessions import Job, open_call
from toolkit.errors import EngineError, ToolkitError
from toolkit.runtime import RuntimeName, share_threads

__all__ = ["main", "measure", "measure_turns"]

_Found = dict[str, Any]


def measure(sides: Sequence[Sequence[Job]], runtime: RuntimeName, options: BenchOptions) -> _Found:
    """Load the one graph of the one side and time it."""
    ((job,),) = sides
    before = memory.resident()
    memory.restart_peak()
    start = time.perf_counter()
    call = open_call(job, runtime, options.threads)
    load_seconds = time.perf_counter() - start
    loading, loaded = memory.peak(), memory.resident()
    memory.restart_peak()
    windows = time_windows(call, options)
    bytes_ = {
        "loading": max(0, loading - before),
        "loaded": max(0, loaded - before),
        "running": max(0, memory.peak() - loaded),
    }
    return {"windows": asdict(windows), "memory": bytes_, "load_seconds": load_seconds}


def measure_turns(
    sides: Sequence[Sequence[Job]], runtime: RuntimeName, options: BenchOptions
) -> _Found:
    """Time two sides in turns; one of several graphs runs them one after another.

    All of them share one pool of threads.
    """
    share_threads(options.threads)
    first, second = (
        _together([open_call(job, runtime, options.threads, pooled=True) for job in jobs])
        for jobs in sides
    )
    return asdict(time_rounds(first, second, options))


_WORK: dict[str, Callable[..., _Found]] = {"measure": measure, "turns": measure_turns}


def main() -> None:
    """Work until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    gc.freeze()  # the child does not touch, and so copy, what is shared
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _work(Path(line.rstrip("\n")))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _work(folder: Path) -> None:
    told = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    options = BenchOptions(**{**told["options"], "runtimes": tuple(told["options"]["runtimes"])})
    try:
        sides = [[_job(job) for job in jobs] for jobs in told["sides"]]
        found = _WORK[told["work"]](sides, told["runtime"], options)
    except ToolkitError as error:
        found = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001  (a runtime raises what it likes)
        first = (str(error).strip().splitlines() or ["no message"])[0]
        message = f"the graph cannot be run: {first}"
        found = {"error": EngineError.__name__, "message": message, "hint": ""}
    (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")


def _job(told: dict[str, Any]) -> Job:
    with np.load(told["feeds"], allow_pickle=False) as arrays:
        feeds = {name: arrays[f"arr_{number}"] for number, name in enumerate(told["names"])}
    return Job(Path(told["path"]), feeds)


def _together(calls: Sequence[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]

    def call() -> None:
        for one in calls:
            one()

    return call


if __name__ == "__main__":
    main()
