"""How much members share, and where two that are built alike first part."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphs.expressions import skeleton_key
from graphs.near_miss import NearMiss
from graphs.origin import members_of
from graphs.tensors import chunks_of

__all__ = ["first_differences"]

_CHUNK = 1 << 20


def first_differences(model: ir.Model, totals: Mapping[str, int]) -> Iterator[NearMiss]:
    """The first node of each member that is another's but for the content of its weights.

    Args:
        model: After equal nodes have become one.
        totals: How many nodes each member had before.
    """
    shared = [frozenset(members) for node in model.graph if len(members := members_of(node)) > 1]
    alike: dict[Hashable, list[ir.Node]] = {}
    told: set[str] = set()
    for node in model.graph:
        key = skeleton_key(node, model.functions)
        if key is None:
            continue
        before = alike.setdefault(key, [])
        for member in [name for name in members_of(node) if name not in told]:
            # A member has nodes of its own that are built alike, such as queries and keys.
            first = next((one for one in before if member not in members_of(one)), None)
            if first is None or not members_of(first):
                continue
            told.add(member)
            other = members_of(first)[0]
            common = sum({member, other} <= members for members in shared)
            share = f"{member} shares {common} of its {totals.get(member, 0)} nodes with {other}"
            yield NearMiss(node.name or node.op_type, f"{share}; here {_difference(node, first)}")
        before.append(node)


def _difference(node: ir.Node, first: ir.Node) -> str:
    for value, other in zip(node.inputs, first.inputs, strict=True):
        if value is not other:
            assert value is not None
            assert other is not None
            return f"{value.name} differs from {other.name} in {_count(value, other)}"
    return f"it differs from {first.name}"


def _count(value: ir.Value, other: ir.Value) -> str:
    """By bits, in chunks: two equal NaN are no difference, zeros of different sign are."""
    one, two = value.const_value, other.const_value
    assert one is not None
    assert two is not None
    if one.dtype == ir.DataType.STRING:
        return f"some of {one.size} elements"
    width, found = max(int(one.dtype.itemsize), 1), 0
    for pair in zip(chunks_of(one, _CHUNK), chunks_of(two, _CHUNK), strict=True):
        rows = (np.frombuffer(chunk, np.uint8).reshape(-1, width) for chunk in pair)
        found += int(np.count_nonzero(np.not_equal(*rows).any(1)))
    return f"{found} of {one.size} elements"
