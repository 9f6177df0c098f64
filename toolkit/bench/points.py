"""Where to measure: the sizes of a graph's dimensions, and for decoders which kind of step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.artifacts import Shapes
from toolkit.bench.subject import Subject
from toolkit.errors import ToolkitError
from toolkit.feeds import caches_of

__all__ = ["Kind", "Point", "parse_shape", "points_of"]

Kind = Literal["run", "prefill", "decode"]

_SIZES = re.compile(r"^\s*[A-Za-z_]\w*\s*=\s*\d+\s*(,\s*[A-Za-z_]\w*\s*=\s*\d+\s*)*$")


@dataclass(frozen=True)
class Point:
    """Sizes to measure at.

    Attributes:
        kind: ``prefill`` reads a text into empty caches, ``decode`` adds one token to full ones;
            a model without caches simply runs.
        dims: The size of every named dimension.
        rows: The first dimension, where all inputs with one share it; else 1.
        tokens: New tokens of a decoder's step, in all rows; 0 for other models.
    """

    kind: Kind
    dims: Mapping[str, int]
    rows: int
    tokens: int = 0

    @property
    def title(self) -> str:
        """``decode: batch 4, sequence 1``."""
        sizes = ", ".join(f"{name} {size}" for name, size in self.dims.items())
        return sizes if self.kind == "run" else f"{self.kind}: {sizes}"


def parse_shape(text: str) -> dict[str, int]:
    """Read ``batch=1,sequence=128``.

    Raises:
        ToolkitError: If the text is not of that form, or says a size twice.
    """
    pairs = [part.split("=") for part in text.split(",")] if _SIZES.match(text) else []
    sizes = {name.strip(): int(size) for name, size in pairs}
    if not pairs or len(sizes) < len(pairs):
        raise ToolkitError(
            f"found the shape {text!r}, wanted NAME=SIZE,NAME=SIZE",
            hint="for example --shape batch=1,sequence=128",
        )
    return sizes


def points_of(subject: Subject, wanted: Sequence[Mapping[str, int]]) -> tuple[Point, ...]:
    """Those that are asked for, or those that the ranges suggest.

    Asked for, a dimension that is not named has its usual size. Otherwise: one row, the usual and
    the largest size; of a decoder, for one row and for the usual number of them, a prefill of the
    usual length and a step with caches of the usual length.

    Raises:
        ToolkitError: If a size is out of its range, or of a dimension that is not there.
    """
    named = list(dict.fromkeys(d for spec in subject.inputs for d in spec.symbols))
    for sizes in wanted:
        _check(sizes, named, subject.shapes)
    used = {name: span for name, span in subject.shapes.items() if name in named}
    usual = {name: span.opt for name, span in used.items()}
    chosen = [{**usual, **sizes} for sizes in wanted] or _suggested(subject, used, usual)
    points = [_point(subject, {n: dims[n] for n in named if n in dims}) for dims in chosen]
    return tuple({(p.kind, *p.dims.items()): p for p in points}.values())


def _check(sizes: Mapping[str, int], named: Sequence[str], shapes: Shapes) -> None:
    for name, size in sizes.items():
        if name not in named:
            raise ToolkitError(
                f"found a size for {name!r}, which no input has",
                hint="dimensions are " + ", ".join(named) if named else "its sizes are fixed",
            )
        span = shapes.get(name)
        if span is not None and not span.min <= size <= span.max:
            raise ToolkitError(
                f"{name} is {size}, wanted {span.min} to {span.max}",
                hint="the ranges are the recipe's shapes",
            )


def _suggested(subject: Subject, used: Shapes, usual: dict[str, int]) -> list[dict[str, int]]:
    batch = _batch(subject)
    one = {} if batch is None or batch not in used else {batch: max(1, used[batch].min)}
    names = _lengths(subject)
    if names is None or not set(names) <= used.keys():
        return [{**usual, **one}, usual, {name: span.max for name, span in used.items()}]
    new, past = names
    prefill = {**usual, past: used[past].min}
    decode = {**usual, new: max(1, used[new].min), past: max(1, used[past].opt)}
    return [{**step, **rows} for rows in (one, {}) for step in (prefill, decode)]


def _point(subject: Subject, dims: dict[str, int]) -> Point:
    batch = _batch(subject)
    rows = dims.get(batch, 1) if batch else 1
    names = _lengths(subject)
    if names is None:
        return Point("run", dims, rows)
    new, past = names
    kind: Kind = "decode" if dims.get(past, 0) else "prefill"
    return Point(kind, dims, rows, rows * dims.get(new, 0))


def _batch(subject: Subject) -> str | None:
    first = {spec.shape[0] for spec in subject.inputs if spec.shape}
    name = first.pop() if len(first) == 1 else None
    return name if isinstance(name, str) else None


def _lengths(subject: Subject) -> tuple[str, str] | None:
    """Names of a decoder's dimensions of new and of known tokens."""
    caches = caches_of(subject.inputs, subject.outputs)
    if caches is None:
        return None
    shapes = {spec.name: spec.shape for spec in subject.inputs}
    new, past = shapes[caches.ids][-1], shapes[caches.past[0]][2]
    return (new, past) if isinstance(new, str) and isinstance(past, str) else None
