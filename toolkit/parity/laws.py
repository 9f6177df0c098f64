"""Laws that hold whatever the right answer is: metamorphic tests (Chen, Cheung & Yiu 1998).

    repeat           the same feeds again give the same bits
    identical rows   a batch of one row repeated gives one output repeated
    row order        rows in reverse order give outputs in reverse order
    one row          a row alone gives what it gives in the batch
    padding content  what stands under the padding changes no valid position
    padding length   more padding on the right changes no valid position

Each is tried on PyTorch first. How far PyTorch is off is the healthy error; where PyTorch itself
does not obey a law, for instance because the model mixes its rows, the law is not held against
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.feeds import Case
from toolkit.parity.compare import Deviation, compare
from toolkit.parity.layout import Layout, richest_case, widened
from toolkit.parity.measure import Broken
from toolkit.parity.options import OutputSpec, Precision
from toolkit.parity.results import Gate
from toolkit.runtime.base import Outputs, Runner

__all__ = ["LAWS", "LawFindings", "Subject", "try_laws"]

_Array = npt.NDArray[Any]
_Pairs = dict[str, tuple[_Array, _Array]]
LawFindings = Mapping[Gate, Mapping[str, Deviation] | Broken | str]
"""By law: the deviation of each output, or why it did not run, or why it does not apply."""


@dataclass(frozen=True)
class Subject:
    """A model, one case of at least two rows, and what the model gives for it."""

    run: Callable[[Mapping[str, _Array]], Outputs]
    cases: Sequence[Case]
    case: Case
    layout: Layout
    outputs: tuple[str, ...]

    @cached_property
    def feeds(self) -> dict[str, _Array]:
        """The inputs of the case."""
        return self.case.feeds()

    @cached_property
    def found(self) -> Outputs:
        """The outputs of the case, those that are compared."""
        return self.again(self.feeds)

    @cached_property
    def rows(self) -> int:
        """How many rows the case has."""
        return self.case.dims[self.layout.rows or ""]

    def again(self, feeds: Mapping[str, _Array]) -> Outputs:
        """The outputs that are compared, for other feeds."""
        found = self.run({name: np.ascontiguousarray(array) for name, array in feeds.items()})
        return {name: np.array(found[name]) for name in self.outputs if name in found}

    def by_row(self) -> Outputs:
        """The outputs that have a row for every row of the inputs."""
        return {n: a for n, a in self.found.items() if a.ndim and a.shape[0] == self.rows}


def _repeat(subject: Subject) -> _Pairs | str:
    again = subject.again(subject.feeds)
    return {name: (array, again[name]) for name, array in subject.found.items()}


def _identical_rows(subject: Subject) -> _Pairs | str:
    first = {n: np.repeat(a[:1], len(a), 0) if a.ndim else a for n, a in subject.feeds.items()}
    found = subject.again(first)
    names = subject.by_row()
    return {n: (np.broadcast_to(found[n][:1], found[n].shape), found[n]) for n in names}


def _row_order(subject: Subject) -> _Pairs | str:
    reverse = {n: a[::-1] if a.ndim else a for n, a in subject.feeds.items()}
    found = subject.again(reverse)
    return {name: (array, found[name][::-1]) for name, array in subject.by_row().items()}


def _one_row(subject: Subject) -> _Pairs | str:
    rows = subject.layout.rows
    if not any(case.dims.get(rows or "") == 1 for case in subject.cases):
        return "the shapes allow no single row"
    last = {n: a[-1:] if a.ndim else a for n, a in subject.feeds.items()}
    found = subject.again(last)
    return {name: (array[-1:], found[name]) for name, array in subject.by_row().items()}


def _padding_content(subject: Subject) -> _Pairs | str:
    layout = subject.layout
    if layout.mask is None:
        return "there is no attention mask"
    mask = subject.feeds[layout.mask]
    if mask.all():
        return "no case has padding"
    rng = np.random.default_rng(0)
    changed = dict(subject.feeds)
    for spec in layout.inputs:
        hidden = layout.padding(spec, subject.case.dims, mask)
        if spec.role == "values" and hidden is not None:
            array = subject.feeds[spec.name]
            changed[spec.name] = np.where(hidden, rng.permuted(array), array)
    return _at_valid(subject, mask, subject.again(changed), mask)


def _padding_length(subject: Subject) -> _Pairs | str:
    layout = subject.layout
    if layout.mask is None:
        return "there is no attention mask"
    if layout.positions is None:
        return "the mask covers a cache too"
    longest = max(case.dims.get(layout.positions, 0) for case in subject.cases)
    extra = min(3, longest - subject.case.dims[layout.positions])
    if extra < 1:
        return "the shapes allow no longer case"
    longer = widened(subject.feeds, layout, extra)
    mask = subject.feeds[layout.mask]
    return _at_valid(subject, mask, subject.again(longer), longer[layout.mask])


def _at_valid(subject: Subject, mask: _Array, found: Outputs, other_mask: _Array) -> _Pairs | str:
    pairs = {}
    spans = subject.layout.spans
    new = subject.case.dims[spans[-1]] if len(spans) > 1 else None
    for name, array in subject.found.items():
        wanted = subject.layout.valid(name, mask, array, new)
        given = subject.layout.valid(name, other_mask, found[name], new)
        if wanted is not None and given is not None:
            pairs[name] = (wanted, given)
    return pairs or "it is not clear which dimension of the outputs counts positions"


LAWS: Mapping[Gate, Callable[[Subject], _Pairs | str]] = {
    "repeat": _repeat,
    "identical rows": _identical_rows,
    "row order": _row_order,
    "one row": _one_row,
    "padding content": _padding_content,
    "padding length": _padding_length,
}


def try_laws(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    run: Runner,
    layout: Layout,
    cases: Sequence[Case],
    outputs: Sequence[OutputSpec],
    precision: Precision,
    without: Collection[int] = (),
) -> tuple[int, LawFindings]:
    """Try every law on a runner that is entered, on a case whose index is not in ``without``.

    In those a choice hangs on rounding, so that of all laws only ``repeat`` must hold.

    Returns:
        The index of the case that was tried, and what was found.
    """
    clear = richest_case(cases, layout, without)
    index = richest_case(cases, layout) if clear is None else clear
    if index is None:
        reason = "no case has two rows" if layout.rows else "the inputs do not share their rows"
        return 0, dict.fromkeys(LAWS, reason)
    names = tuple(output.name for output in outputs)
    subject = Subject(run, cases, cases[index], layout, names)
    tried: list[Gate] = list(LAWS) if clear is not None else ["repeat"]
    reason = "in every case of two rows a choice hangs on rounding"
    findings: dict[Gate, Mapping[str, Deviation] | Broken | str] = dict.fromkeys(LAWS, reason)
    return index, findings | {gate: _try(gate, subject, precision) for gate in tried}


def _try(
    gate: Gate, subject: Subject, precision: Precision
) -> Mapping[str, Deviation] | Broken | str:
    try:
        pairs = LAWS[gate](subject)
    # As for cases: that a runtime cannot run such feeds is a finding.
    except Exception as error:  # noqa: BLE001
        return Broken(f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}")
    if isinstance(pairs, str):
        return pairs
    if not pairs:
        return "no output has one row for each row of the inputs"
    for name, (wanted, given) in pairs.items():
        if wanted.shape != given.shape:
            return Broken(f"{name} has shape {list(given.shape)}, expected {list(wanted.shape)}")
    if gate == "repeat":
        return {name: _bits(wanted, given) for name, (wanted, given) in pairs.items()}
    return {
        name: _deviation(wanted, given, subject.found[name], precision)
        for name, (wanted, given) in pairs.items()
    }


def _bits(wanted: _Array, given: _Array) -> Deviation:
    """How many values are not the same bits, as ``max``."""
    same = np.ascontiguousarray(wanted).tobytes() == np.ascontiguousarray(given).tobytes()
    differing = 0 if same else max(1, int((wanted != given).sum()))
    return Deviation(n=wanted.size, eps=0.0, max=float(differing))


def _deviation(wanted: _Array, given: _Array, whole: _Array, precision: Precision) -> Deviation:
    """The difference relative to the whole output's scale, of which ``wanted`` may be a part."""
    found = compare(wanted, given, "values", precision)
    scale = compare(whole, whole, "values", precision).scale
    part = found.scale / scale
    return replace(found, scale=scale, rms=found.rms * part, max=found.max * part)
