"""Which dimension counts rows, which counts positions: read off the inputs' symbolic shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.caches import CROSS, is_cache
from toolkit.feeds import Case

__all__ = ["Layout", "layout_of", "richest_case", "widened"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The meaning of a model's dimensions.

    Attributes:
        inputs: The specifications.
        rows: The symbol every input's first dimension has; None if there is none.
        mask: Name of the attention mask; None if there is none.
        positions: The symbol of the mask's last dimension if that is one symbol.
        spans: The symbols that the mask's last dimension adds up, in order: one, or those of a
            cache and of what is new.
        crossed: Whether the mask covers a source, of whose positions outputs have none.
    """

    inputs: tuple[TensorSpec, ...]
    rows: str | None
    mask: str | None
    positions: str | None
    spans: tuple[str, ...]
    crossed: bool = False

    def padding(self, spec: TensorSpec, dims: Mapping[str, int], mask: _Array) -> _Array | None:
        """Where ``spec`` lies under padding, to broadcast against it; None if it has no positions.

        ``mask`` is [rows, positions]; a cache [rows, heads, past, width] lies under its first part.
        """
        start = 0
        for span in self.spans:
            stop = start + dims[span]
            if span in spec.shape[1:]:
                axis = spec.shape.index(span)
                shape = [len(mask), *[1] * (len(spec.shape) - 1)]
                shape[axis] = dims[span]
                hidden: _Array = (mask[:, start:stop] == 0).reshape(shape)
                return hidden
            start = stop
        return None

    def valid(
        self, name: str, mask: _Array, output: _Array, new: int | None = None
    ) -> _Array | None:
        """``output``, called ``name``, at the positions where ``mask`` [rows, positions] is not 0.

        An output without positions is valid as a whole; None where it is not clear which of its
        dimensions counts positions. With a cache, ``new`` of the positions are new ones, which
        outputs [rows, new, …] have; caches [rows, heads, positions, width] have all.
        """
        if self.crossed:
            return output
        decodes = new is not None or is_cache(name)
        if decodes and output.ndim == 4 and output.shape[2] == mask.shape[1]:
            by_position: _Array = np.moveaxis(output, 2, 1)[mask != 0]
            return by_position
        if new is not None:
            mask = mask[:, mask.shape[1] - new :]
        if output.shape[: mask.ndim] == mask.shape:
            kept: _Array = output[mask != 0]
            return kept
        if output.shape[0] != mask.shape[0] or mask.shape[1] in output.shape[1:]:
            return None
        return output


def layout_of(inputs: Sequence[TensorSpec]) -> Layout:
    """Read the layout off the shapes."""
    first = {spec.shape[0] for spec in inputs if spec.shape}
    rows = first.pop() if len(first) == 1 else None
    masks = [spec for spec in inputs if spec.role == "mask" and len(spec.shape) == 2]
    mask = masks[0] if len(masks) == 1 else None
    last = mask.shape[1] if mask else None
    return Layout(
        inputs=tuple(inputs),
        rows=rows if isinstance(rows, str) else None,
        mask=mask.name if mask else None,
        positions=last if isinstance(last, str) and " " not in last else None,
        spans=tuple(last.split(" + ")) if isinstance(last, str) else (),
        crossed=any(spec.name.startswith(CROSS) for spec in inputs),
    )


def richest_case(
    cases: Sequence[Case], layout: Layout, without: Collection[int] = ()
) -> int | None:
    """The index of a case with two rows or more, padded if any is; None if there is none.

    Padding on the left before padding on the right, which a causal model could not read anyway.
    Those whose indices are in ``without`` are no candidates.
    """
    order = {"padded": 0, "corner": 1, "near corner": 2, "random": 3}
    able = [
        (order.get(case.kind, 4), case.mask is None, index)
        for index, case in enumerate(cases)
        if case.drive is None
        and index not in without
        and layout.rows
        and case.dims.get(layout.rows, 1) > 1
        and 0 not in case.dims.values()
    ]
    for *_, index in sorted(able):
        if layout.mask is None or not cases[index].feeds()[layout.mask].all():
            return index
    return min(able)[-1] if able else None


def widened(feeds: Mapping[str, _Array], layout: Layout, extra: int) -> dict[str, _Array]:
    """Feeds with ``extra`` positions of padding on the right; their content is a valid one's."""
    longer = {}
    for spec in layout.inputs:
        array = feeds[spec.name]
        for axis, dim in enumerate(spec.shape):
            if dim == layout.positions:
                tail = np.repeat(np.take(array, [0], axis), extra, axis)
                if spec.role == "mask":
                    tail = np.zeros_like(tail)
                array = np.concatenate([array, tail], axis)
        longer[spec.name] = array
    return longer
