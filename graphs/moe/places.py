"""Where the rows of a block come from and go to: places of slots and rows, as nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import Dim, dims_of
from graphs.moe.blocks import ExpertBlock
from graphs.moe.routing import Dispatch

__all__ = ["expert_of_slot", "joined", "source_of_row", "source_of_slot", "taken"]

_INT = ir.DataType.INT64


def source_of_row(block: ExpertBlock, dispatch: Dispatch, added: Additions) -> ir.Value:
    """Which row of ``x`` each sorted row is, [T * k]."""
    if block.spread == block.top_k:
        return dispatch.token_of_row
    slots = _slots(block, added)
    inputs = [slots, dispatch.row_of_slot, slots]
    slot_of_row = added.node("slot_of_row", "ScatterElements", inputs, _INT, [None], axis=0)
    return _over_spread(slot_of_row, block, added)


def source_of_slot(block: ExpertBlock, added: Additions) -> ir.Value:
    """Which row of ``x`` each slot reads, [T * k]."""
    return _over_spread(_slots(block, added), block, added)


def expert_of_slot(block: ExpertBlock, added: Additions) -> ir.Value:
    """The ids, slot by slot, [T * k]."""
    every = added.constant("every", np.array([-1], np.int64))
    return added.node("expert", "Reshape", [block.ids, every], _INT, [None])


def joined(parts: Sequence[ir.Value], added: Additions) -> ir.Value:
    """Rows of several values, one after the other."""
    return _rows_like(parts[0], "joined", "Concat", list(parts), added)


def taken(value: ir.Value, places: ir.Value, added: Additions, label: str) -> ir.Value:
    """Rows of a value in another order."""
    return _rows_like(value, label, "Gather", [value, places], added)


def _rows_like(
    value: ir.Value, label: str, op_type: str, inputs: list[ir.Value], added: Additions
) -> ir.Value:
    assert value.dtype is not None
    assert value.shape is not None
    dims: list[Dim] = [None, *dims_of(value.shape)[1:]]
    return added.node(label, op_type, inputs, value.dtype, dims, axis=0)


def _over_spread(slots: ir.Value, block: ExpertBlock, added: Additions) -> ir.Value:
    if block.spread == 1:
        return slots
    spread = added.constant("spread", np.array(block.spread, np.int64))
    return added.node("source", "Div", [slots, spread], _INT, [None])


def _slots(block: ExpertBlock, added: Additions) -> ir.Value:
    none = added.constant("none", np.array(0, np.int64))
    single = added.constant("single", np.array(1, np.int64))
    count = added.node("slot_count", "Size", [block.ids], _INT, [])
    return added.node("slot", "Range", [none, count, single], _INT, [None])
