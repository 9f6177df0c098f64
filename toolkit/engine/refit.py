"""Give the engine of a bundle new weights, without building it again."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import toolkit
from toolkit.artifacts import Engine
from toolkit.engine.choices import TITLES, Flavour
from toolkit.engine.diagnosis import crash
from toolkit.engine.requirements import MODULES, device_capability
from toolkit.errors import CapabilityError, EngineError
from toolkit.progress import Progress, silent

__all__ = ["refit_engine", "require_refit"]

COMMAND = (sys.executable, "-m", "toolkit.engine.refit_worker")


def require_refit(flavour: Flavour) -> None:
    """Check that engines of a flavour can be refitted here: reading one takes the GPU it is for.

    Raises:
        CapabilityError: If the package or the GPU is missing.
    """
    lacking = []
    if importlib.util.find_spec(MODULES[flavour]) is None:
        lacking.append(f"the Python package {MODULES[flavour]}")
    if device_capability() is None:
        lacking.append("an NVIDIA GPU with its driver")
    if lacking:
        extra = "gpu" if flavour == "tensorrt" else "rtx"
        raise CapabilityError(
            f"a {TITLES[flavour]} engine cannot be refitted: this machine lacks "
            + " and ".join(lacking),
            hint=f"on a machine with a GPU: pip install 'ensemble-to-engine[{extra}]'",
        )


def refit_engine(  # noqa: PLR0913  (each is a different thing, and all are needed)
    engine: Engine,
    model: Path,
    changed: Sequence[str],
    out: Path,
    progress: Progress = silent,
    *,
    time_limit: float = 600.0,
) -> Engine:
    """Write an engine's plan with the weights of an ONNX file to ``out``.

    Args:
        engine: The old engine, built to be refitted from that graph with other weights.
        model: The graph with the new ones.
        changed: Names of its weights that have changed.
        out: The new plan; there is none after an error.
        progress: Told that it begins.
        time_limit: Seconds after which it is given up.

    Raises:
        CapabilityError: If this machine lacks the package or a GPU.
        EngineError: If the plan does not take the weights, or TensorRT crashes or takes too long.
    """
    title = TITLES[engine.flavour]
    require_refit(engine.flavour)
    progress(f"refit the {title} engine", 0, 0)
    started = time.monotonic()
    request = {
        "flavour": engine.flavour, "plan": str(engine.path.absolute()),
        "model": str(model.absolute()), "out": str(out.absolute()), "changed": list(changed),
    }  # fmt: skip
    try:
        _ask(request, title, time_limit)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return replace(engine, path=out, seconds=time.monotonic() - started)


def _ask(request: Mapping[str, object], title: str, time_limit: float) -> None:
    try:
        done = subprocess.run(
            COMMAND, input=json.dumps(request) + "\n", capture_output=True, text=True, check=False,
            timeout=time_limit, cwd=Path(toolkit.__file__).parent.parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{title} was stopped at the time limit of {time_limit:g} s while it refitted"
        ) from error
    lines = done.stdout.splitlines()
    if not lines:
        raise crash(title, done.returncode, "refit", done.stderr)
    answer = json.loads(lines[-1])
    if answer:
        kind = CapabilityError if answer["kind"] == "capability" else EngineError
        raise kind(answer["message"], hint=answer["hint"])
