"""Every value inside a graph: from ONNX Runtime, and in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

import graphs
from toolkit.errors import ParityError
from toolkit.runtime import Feeds, OrtRunner, Outputs

__all__ = ["GraphTrace", "OrtTrace", "Trace", "chunked", "value_sizes"]

_Array = npt.NDArray[Any]


class Trace(Protocol):
    """Shows values inside a model under the names they have in the graph."""

    @property
    def names(self) -> Collection[str]:
        """The values it can show."""

    def __call__(self, feeds: Feeds, wanted: Collection[str]) -> Outputs:
        """Run once; what cannot be shown is left out."""


class OrtTrace:
    """Some values of a graph in ONNX Runtime, without its optimisations, which rename values."""

    def __init__(
        self,
        graph: Path,
        work: Path,
        names: Collection[str],
        what: Literal["values", "shapes"] = "values",
        *,
        threads: int = 0,
    ) -> None:
        """Expose ``names`` in a file in the folder ``work``; weights stay where they are."""
        file = work / f"{what}.onnx"
        self._values = graphs.expose(graph, file, names, what=what).values
        self._runner = OrtRunner(file, optimise=False, threads=threads, weights=graph.parent)

    def __enter__(self) -> OrtTrace:
        """Create the session.

        Raises:
            ExportError: If ONNX Runtime refuses the graph.
        """
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the session."""
        self._runner.__exit__(kind, error, traceback)

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run once.

        Raises:
            ParityError: If a node cannot run on these feeds.
        """
        try:
            found = self._runner(feeds)
        # ONNX Runtime has an exception for every status; all of them say that a node cannot run.
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
            raise ParityError(f"ONNX Runtime cannot run the graph: {reason}") from error
        return dict(zip(self._values, found.values(), strict=True))


def value_sizes(
    graph: Path, work: Path, names: Sequence[str], samples: Sequence[Callable[[], Feeds]]
) -> dict[str, int]:
    """Elements of each value in the sample where it is largest, measured by running for shapes.

    Raises:
        ExportError: If ONNX Runtime refuses the part of the graph behind ``names``.
        ParityError: If a node of it cannot run.
    """
    sizes = dict.fromkeys(names, 0)
    with OrtTrace(graph, work, names, "shapes") as shapes:
        for feeds in samples:
            for name, shape in shapes(feeds()).items():
                sizes[name] = max(sizes[name], math.prod(shape.tolist()))
    return sizes


def chunked(names: Sequence[str], sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Neighbouring names in groups of at most ``limit`` elements; one larger is a group alone."""
    group: list[str] = []
    total = 0
    for name in names:
        if group and total + sizes[name] > limit:
            yield group
            group, total = [], 0
        group.append(name)
        total += sizes[name]
    if group:
        yield group


class GraphTrace:
    """The values of a graph in float64, evaluated with numpy by ONNX's reference.

    Where ``anchors`` (PyTorch's own trace) knows a value, that one is used, here and as the input
    of what follows: an operator that was translated wrongly then spoils its own output only.
    """

    def __init__(self, graph: Path, work: Path, anchors: Trace | None) -> None:
        import onnx  # noqa: PLC0415  (a second to import, and only explanations need it)
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

        file = work / "float64.onnx"
        graphs.lift(graph, file)
        self._nodes: Sequence[Any] = ReferenceEvaluator(onnx.load(file)).rt_nodes_
        self._weights = graphs.Weights(graph)
        self._anchors = anchors
        self._known = frozenset(anchors.names) if anchors is not None else frozenset()
        self.names = tuple(name for node in self._nodes for name in node.output if name)

    def __call__(self, feeds: Feeds, wanted: Collection[str]) -> Outputs:
        """Evaluate what is wanted; a value that cannot be evaluated is left out."""
        values: dict[str, _Array] = {name: _lift(value) for name, value in feeds.items()}
        plan = self._needed(wanted)
        if self._anchors is not None:
            read = {name for node in plan for name in _read(node)} | set(wanted)
            values.update(self._anchors(feeds, read & self._known))
            if lost := (read & self._known) - set(values):
                self._known -= lost
                plan = self._needed(wanted)
        last = {name: position for position, node in enumerate(plan) for name in _read(node)}
        for position, node in enumerate(plan):
            self._evaluate(node, values)
            for name in _read(node):
                if last[name] == position and name not in wanted:
                    values.pop(name, None)
        return {name: values[name] for name in wanted if name in values}

    def _needed(self, wanted: Collection[str]) -> list[Any]:
        """The nodes behind what is wanted, back to feeds, weights and anchors."""
        open_names, plan = set(wanted) - self._known, []
        for node in reversed(self._nodes):
            if open_names & set(node.output):
                plan.append(node)
                open_names |= _read(node) - self._known
        return plan[::-1]

    def _evaluate(self, node: Any, values: dict[str, _Array]) -> None:
        for name in _read(node):
            if name not in values and name in self._weights:
                values[name] = _lift(self._weights[name])
        if not _read(node) <= set(values):
            return
        inputs = [values[name] if name else None for name in node.input]
        context = {"context": values} if node.need_context() else {}
        try:
            with np.errstate(all="ignore"):
                outputs = node.run(*inputs, **context)
        # ONNX's reference raises whatever numpy does, and lacks some operators; its value is then
        # unknown, which the explanation counts and says.
        except Exception:  # noqa: BLE001
            return
        for name, value in zip(node.output, outputs, strict=False):
            if name and name not in self._known:
                values[name] = np.asarray(value)


def _read(node: Any) -> set[str]:
    """Inputs, those that subgraphs take from outside included."""
    return {name for name in node.input if name} | _from_outside(node.onnx_node)


def _from_outside(node: Any) -> set[str]:
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inner = {value.name for value in graph.input}
            for below in graph.node:
                names |= {name for name in below.input if name} - inner
                names |= _from_outside(below) - inner
                inner |= set(below.output)
    return names


def _lift(value: _Array) -> _Array:
    kind = value.dtype
    narrow = kind.name in {"float16", "bfloat16", "float32"}
    return value.astype(np.float64) if narrow else value
