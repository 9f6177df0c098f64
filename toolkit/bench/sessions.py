"""A graph opened in a runtime, as a call without arguments: nothing is timed but the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from toolkit.runtime import Provider, RuntimeName, open_runtime, open_session, runs_plans

__all__ = ["Job", "open_call"]


@dataclass(frozen=True)
class Job:
    """One graph and what it is fed.

    Attributes:
        path: The ONNX file.
        feeds: Arrays by input name.
    """

    path: Path
    feeds: Mapping[str, npt.NDArray[Any]]


def open_call(
    job: Job, runtime: RuntimeName, threads: int, *, pooled: bool = False
) -> Callable[[], object]:
    """Open a graph, or the plan beside it; the call runs it with the feeds, outputs on the host.

    ``pooled`` sessions of ONNX Runtime use the threads that ``share_threads`` made.

    Raises:
        CapabilityError: If the runtime is not here.
        EngineError: If there is no plan, or it cannot be opened here.
        ExportError: If ONNX Runtime refuses the graph.
    """
    if runs_plans(runtime):
        runner = open_runtime(runtime, job.path.with_suffix(".plan"))
        runner.__enter__()  # to the end of this process
        return partial(runner, {name: np.ascontiguousarray(a) for name, a in job.feeds.items()})
    provider = cast("Provider", runtime)
    # Not its runner, which looks at every feed in every run.
    session = open_session(job.path, provider=provider, threads=threads, pooled=pooled)
    wanted = [each.name for each in session.get_inputs()]
    feeds = {name: np.ascontiguousarray(job.feeds[name]) for name in wanted}
    return partial(session.run, [each.name for each in session.get_outputs()], feeds)
