"""The runtimes that a finished model can be run on, by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from toolkit.errors import CapabilityError, EngineError
from toolkit.runtime.base import Runner
from toolkit.runtime.engine import EngineFlavour, TrtRunner
from toolkit.runtime.ort import PROVIDERS, OrtRunner, Provider, providers

__all__ = ["RUNTIMES", "RuntimeName", "open_runtime", "require_runtime", "runs_plans"]

RuntimeName = Literal["cpu", "cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"]

RUNTIMES: Mapping[RuntimeName, str] = {
    "cpu": "ONNX Runtime on the CPU",
    "cuda": "ONNX Runtime on an NVIDIA GPU, its CUDA execution provider",
    "ort-tensorrt": "ONNX Runtime on an NVIDIA GPU, its TensorRT execution provider",
    "tensorrt": "a TensorRT engine (model.plan) on an NVIDIA GPU",
    "tensorrt-rtx": "a TensorRT-RTX engine (model.plan) on an NVIDIA GPU",
}

_EXTRAS: Mapping[str, str] = {"tensorrt": "gpu", "tensorrt-rtx": "rtx"}


def runs_plans(name: RuntimeName) -> bool:
    """Whether a runtime runs engines; the others run ONNX files."""
    return name in get_args(EngineFlavour)


def require_runtime(name: RuntimeName) -> None:
    """Refuse a runtime that this machine lacks, before anything is loaded.

    Raises:
        CapabilityError: Naming what is missing and how to get it.
        EngineError: If there is no such runtime.
    """
    if name not in RUNTIMES:
        raise EngineError(f"unknown runtime {name!r}", hint="one of " + ", ".join(RUNTIMES))
    if name == "cpu":
        return
    hint = f"on a machine with an NVIDIA GPU: pip install 'ensemble-to-engine[{_extra(name)}]'"
    if runs_plans(name):
        module = name.replace("-", "_")
        if importlib.util.find_spec(module) is None:
            raise CapabilityError(
                f"the runtime {name} needs the Python package {module}, which is not installed",
                hint=hint,
            )
    else:
        wanted, found = PROVIDERS[cast("Provider", name)], providers()
        if wanted not in found:
            raise CapabilityError(
                f"ONNX Runtime has no {wanted} here, only {', '.join(found)}", hint=hint
            )
    # TensorRT without a driver ended in a segmentation fault in several releases: ask first.
    if not Path("/dev/nvidiactl").exists():
        raise CapabilityError(
            f"the runtime {name} needs an NVIDIA GPU, and this machine shows none",
            hint="toolkit doctor lists what this machine can do",
        )
    if runs_plans(name) and not torch.cuda.is_available():
        raise CapabilityError(
            f"the runtime {name} takes its memory from PyTorch, whose build here has no CUDA",
            hint="install PyTorch for CUDA; toolkit doctor lists what this machine can do",
        )


def _extra(name: RuntimeName) -> str:
    return _EXTRAS.get(name, "gpu")


def open_runtime(  # noqa: PLR0913  (independent options of a runner)
    name: RuntimeName,
    path: Path,
    *,
    optimise: bool = True,
    threads: int = 0,
    cuda_graph: bool = False,
    label: str = "",
) -> Runner:
    """A runner, to be used in a ``with`` block.

    Args:
        name: A key of ``RUNTIMES``.
        path: The ONNX file, or the plan for ``tensorrt`` and ``tensorrt-rtx``; or a bundle, of
            which ``model.onnx`` or ``model.plan`` is taken.
        optimise: Whether ONNX Runtime may rewrite the graph.
        threads: How many run an operator of ONNX Runtime; 0 for one on each core.
        cuda_graph: Whether an engine runs as a CUDA graph where it can be captured.
        label: Appended to the runner's name.

    Raises:
        CapabilityError: If this machine lacks the runtime.
        EngineError: If there is no such runtime, or no plan.
    """
    require_runtime(name)
    if runs_plans(name):
        plan = path / "model.plan" if path.is_dir() else path
        if not plan.is_file():
            raise EngineError(
                f"there is no engine at {plan}, wanted one of {name}",
                hint=f"toolkit build {path.parent if plan == path else path} --target {name}",
            )
        return TrtRunner(plan, cast("EngineFlavour", name), cuda_graph=cuda_graph, label=label)
    model = path / "model.onnx" if path.is_dir() else path
    provider = cast("Provider", name)
    return OrtRunner(model, optimise=optimise, threads=threads, provider=provider, label=label)
