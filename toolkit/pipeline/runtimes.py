"""The runtimes a graph can be proven on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from toolkit.errors import CapabilityError
from toolkit.pipeline.watched import Watching
from toolkit.runtime import Runner, providers

__all__ = ["Runtime", "candidate_runners", "require_runtime", "unsupported"]

Runtime = Literal["cpu", "cuda", "tensorrt"]


def candidate_runners(
    graph: Path, watching: Watching, runtime: Runtime = "cpu", label: str = ""
) -> tuple[Runner, ...]:
    """The graph without and with the runtime's optimisations.

    Args:
        graph: An ONNX file.
        watching: Shows which experts it chooses.
        runtime: ``cuda`` and ``tensorrt`` are ONNX Runtime's execution providers of that name.
        label: Appended to the runners' names.
    """
    optimised = watching.runner(graph, runtime, label)
    if runtime == "tensorrt":  # builds one optimised engine of the whole graph
        return (optimised,)
    return (watching.runner(graph, runtime, label, optimise=False), optimised)


def unsupported(precision: str, runtime: Runtime) -> str:
    """Why the runtime cannot run graphs of this precision; empty where it can."""
    if precision == "bfloat16" and runtime == "cpu":
        return "ONNX Runtime has no bfloat16 kernels for the CPU: run toolkit parity --runtime cuda"
    return ""


def require_runtime(runtime: Runtime) -> None:
    """Refuse a runtime that ONNX Runtime was not built with, or that finds no GPU.

    Raises:
        CapabilityError: Naming what is missing.
    """
    if runtime == "cpu":
        return
    wanted = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[runtime]
    found = providers()
    if wanted not in found:
        raise CapabilityError(
            f"ONNX Runtime has no {wanted} here, only {', '.join(found)}",
            hint="on a machine with an NVIDIA GPU: pip install 'ensemble-to-engine[gpu]'",
        )
    if not Path("/dev/nvidiactl").exists():
        raise CapabilityError(
            f"the runtime {runtime} needs an NVIDIA GPU, and this machine shows none",
            hint="toolkit doctor lists what this machine can do",
        )
