"""Where one graph differs from another that should be its twin, found without running either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphs.outlining import NodeOutline, Outline, outline
from graphs.weights import Weights

__all__ = ["Difference", "differences"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be.

    Attributes:
        subject: The node, weight or output.
        nodes: Names of the nodes of the found graph that compute something else because of it.
        detail: What was found and what was wanted, in words.
    """

    subject: str
    nodes: tuple[str, ...]
    detail: str


def differences(found: Path, wanted: Path) -> tuple[Difference, ...]:
    """Compare two graphs by the names of their values, functions inlined.

    Node names are not compared: passes number them, so one node more renames its neighbours.

    Raises:
        GraphError: If one of them cannot be read.
    """
    have, want = outline(found), outline(wanted)
    return (
        *_outputs(have, want),
        *_nodes(have, want),
        *_initializers(have, Weights(found), Weights(wanted)),
    )


def _outputs(have: Outline, want: Outline) -> Iterator[Difference]:
    if have.outputs != want.outputs:
        detail = f"outputs are {', '.join(have.outputs)}, wanted {', '.join(want.outputs)}"
        yield Difference("outputs", (), detail)


def _nodes(have: Outline, want: Outline) -> Iterator[Difference]:
    producers = {name: node for node in want.nodes for name in node.outputs if name}
    present = {name for node in have.nodes for name in node.outputs if name}
    for node in have.nodes:
        twin = next((producers[name] for name in node.outputs if name in producers), None)
        if twin is None:
            what = f"{node.op}({', '.join(node.inputs)}) is new"
            yield Difference(node.name, (node.name,), what)
        else:
            yield from (Difference(node.name, (node.name,), text) for text in _changes(node, twin))
    for node in want.nodes:
        gone = [name for name in node.outputs if name and name not in present]
        if gone:
            users = _users(have, {*gone, *node.inputs})
            detail = f"{node.op}({', '.join(node.inputs)}) is missing"
            yield Difference(node.name, users, detail)


def _changes(node: NodeOutline, twin: NodeOutline) -> Iterator[str]:
    if node.op != twin.op:
        yield f"the operator is {node.op}, wanted {twin.op}"
    pairs = zip_longest(node.inputs, twin.inputs, fillvalue="")
    for index, (found, wanted) in enumerate(pairs):
        if found != wanted:
            yield f"input {index} is {found or 'left out'}, wanted {wanted or 'none'}"
    if node.op != twin.op:
        return
    for name in sorted({*node.attributes, *twin.attributes}):
        value, other = node.attributes.get(name), twin.attributes.get(name)
        if value != other:
            yield f"{name} is {_or_default(value)}, wanted {_or_default(other)}"


def _or_default(text: str | None) -> str:
    return "its default" if text is None else text


def _users(graph: Outline, names: set[str]) -> tuple[str, ...]:
    return tuple(
        node.name for node in graph.nodes if names & {name for name in node.inputs if name}
    )


def _initializers(
    have: Outline, found: Mapping[str, _Array], wanted: Mapping[str, _Array]
) -> Iterator[Difference]:
    for name in wanted:
        if name not in found:
            yield Difference(name, (), "weight is missing")
    for name in found:
        if name not in wanted:
            yield Difference(name, _users(have, {name}), "weight is new")
        elif detail := _weight_change(found[name], wanted[name]):
            yield Difference(name, _users(have, {name}), detail)


def _weight_change(found: _Array, wanted: _Array) -> str:
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        have, want = f"{found.dtype}{list(found.shape)}", f"{wanted.dtype}{list(wanted.shape)}"
        return f"weight is {have}, wanted {want}"
    changed = np.flatnonzero(found.reshape(-1) != wanted.reshape(-1))
    both = found.reshape(-1)[changed], wanted.reshape(-1)[changed]
    # NaN differs from itself, and is no change where both have it.
    changed = changed[~((both[0] != both[0]) & (both[1] != both[1]))]
    if not changed.size:
        return ""
    first = tuple(int(i) for i in np.unravel_index(changed[0], found.shape))
    values = f"{found[first]:.9g}, wanted {wanted[first]:.9g}" if found.dtype != bool else "flipped"
    where = f"{changed.size} of {found.size} elements{_common_row(changed, found.shape)}"
    return f"weight differs in {where}, the first at {list(first)}: {values}"


def _common_row(changed: npt.NDArray[np.intp], shape: tuple[int, ...]) -> str:
    """The one index along an axis that all changes share, in words."""
    if len(shape) < 2:
        return ""
    indices = np.unravel_index(changed, shape)
    for axis, index in enumerate(indices):
        if shape[axis] > 1 and changed.size > 1 and (index == index[0]).all():
            return f" (all with index {int(index[0])} along axis {axis})"
    return ""
