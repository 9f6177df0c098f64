"""The runtimes a graph can be proven on."""

from __future__ import annotations

from pathlib import Path

from toolkit.pipeline.watched import Watching
from toolkit.runtime import Runner, RuntimeName, open_runtime, runs_plans

__all__ = ["candidate_runners", "graph_runtime", "unsupported"]


def candidate_runners(
    graph: Path, watching: Watching, runtime: RuntimeName = "cpu", label: str = ""
) -> tuple[Runner, ...]:
    """What is held against PyTorch: the graph without and with the runtime's optimisations.

    Of ``tensorrt`` and ``tensorrt-rtx`` it is the engine beside the graph. Which experts that
    chooses is not seen.

    Args:
        graph: An ONNX file.
        watching: Shows which experts it chooses.
        runtime: What runs it.
        label: Appended to the runners' names.

    Raises:
        EngineError: If an engine is to be run and there is none.
    """
    if runs_plans(runtime):
        return (open_runtime(runtime, graph.with_name("model.plan"), label=label),)
    optimised = watching.runner(graph, runtime, label)
    if runtime == "ort-tensorrt":  # builds one optimised engine of the whole graph
        return (optimised,)
    return (watching.runner(graph, runtime, label, optimise=False), optimised)


def graph_runtime(runtime: RuntimeName) -> RuntimeName:
    """What runs the graphs that only prove a graph: where engines are run, ONNX Runtime."""
    return "cpu" if runs_plans(runtime) else runtime


def unsupported(precision: str, runtime: RuntimeName) -> str:
    """Why the runtime cannot run graphs of this precision; empty where it can."""
    if precision == "bfloat16" and runtime == "cpu":
        return "ONNX Runtime has no bfloat16 kernels for the CPU: run toolkit parity --runtime cuda"
    return ""
