"""A graph opened in a runtime, as a call without arguments: nothing is timed but the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import CapabilityError, ToolkitError
from toolkit.runtime import open_session, providers

__all__ = ["RUNTIMES", "Job", "check_runtime", "open_call"]

# Names of runtimes, with what ONNX Runtime calls the provider.
RUNTIMES: Mapping[str, tuple[Any, str]] = {
    "cpu": ("cpu", "CPUExecutionProvider"),
    "cuda": ("cuda", "CUDAExecutionProvider"),
    "ort-tensorrt": ("ort-tensorrt", "TensorrtExecutionProvider"),
}


@dataclass(frozen=True)
class Job:
    """One graph and what it is fed.

    Attributes:
        path: The ONNX file.
        feeds: Arrays by input name.
    """

    path: Path
    feeds: Mapping[str, npt.NDArray[Any]]


def check_runtime(name: str) -> None:
    """Whether it is here.

    Raises:
        ToolkitError: If there is none of this name.
        CapabilityError: If ONNX Runtime is not built with it, naming what it is built with.
    """
    if name not in RUNTIMES:
        raise ToolkitError(f"found no runtime {name!r}", hint="one of " + ", ".join(RUNTIMES))
    known = providers()
    if RUNTIMES[name][1] not in known:
        here = [each for each, (_, provider) in RUNTIMES.items() if provider in known]
        raise CapabilityError(
            f"runtime {name} is not here: this ONNX Runtime has {', '.join(known)}",
            hint=f"--runtime {' or '.join(here)}; for GPUs: pip install 'ensemble-to-engine[gpu]'",
        )


def open_call(
    job: Job, runtime: str, threads: int, *, pooled: bool = False
) -> Callable[[], object]:
    """Open a session; the call runs it once with the job's feeds, outputs on the host.

    ``pooled`` sessions use the threads that ``share_threads`` made.

    Raises:
        CapabilityError: If the runtime is not here.
        ExportError: If it refuses the graph.
    """
    session = open_session(job.path, provider=RUNTIMES[runtime][0], threads=threads, pooled=pooled)
    wanted = [each.name for each in session.get_inputs()]
    feeds = {name: np.ascontiguousarray(job.feeds[name]) for name in wanted}
    return partial(session.run, [each.name for each in session.get_outputs()], feeds)
