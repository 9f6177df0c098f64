"""What ``If`` and ``Loop`` must keep, and nodes inside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from graphs.tensorrt.node_checks import Check
from graphs.tensorrt.sites import Site, dims, names_upstream, origin, type_name

__all__ = ["CONTROL_CHECKS"]

_Pair = tuple[ir.Value, ir.Value]


def _branches(node: ir.Node) -> tuple[ir.Graph, ir.Graph]:
    return tuple(node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))  # type: ignore[return-value]


def _pairs(site: Site) -> list[_Pair]:
    """What the two branches give, output by output; none where the condition is constant.

    The parser reads only the branch that a constant condition picks.
    """
    condition = site.input(0)
    if condition is not None and ir.convenience.get_const_tensor(condition) is not None:
        return []
    then, other = _branches(site.node)
    return list(zip(then.outputs, other.outputs, strict=False))


def _condition(site: Site) -> Iterator[str]:
    condition = site.input(0)
    kind, shape = type_name(condition), dims(condition)
    if kind and kind != "BOOL":
        yield f"a condition of type {kind.lower()}"
    if shape is not None and any(dim != 1 for dim in shape):
        yield f"a condition of shape {list(shape)}"


def _outputs(site: Site) -> Iterator[str]:
    then, other = _branches(site.node)
    if len(then.outputs) != len(other.outputs):
        yield f"{len(then.outputs)} and {len(other.outputs)} outputs"


def _names(site: Site) -> Iterator[str]:
    for then, other in _pairs(site):
        if then is not other and then.name == other.name:
            yield f"{then.name!r} in both branches"


def _type(site: Site) -> Iterator[str]:
    for then, other in _pairs(site):
        first, second = type_name(then), type_name(other)
        if first and second and first != second:
            yield f"{then.name!r} of {first.lower()} and {other.name!r} of {second.lower()}"


def _rank(site: Site) -> Iterator[str]:
    for then, other in _pairs(site):
        first, second = dims(then), dims(other)
        if first is not None and second is not None and len(first) != len(second):
            yield f"{then.name!r} of rank {len(first)} and {other.name!r} of rank {len(second)}"


def _shape(site: Site) -> Iterator[str]:
    for then, other in _pairs(site):
        first, second = dims(then), dims(other)
        if first is None or second is None or len(first) != len(second):
            continue
        for one, two in zip(first, second, strict=True):
            if isinstance(one, int) and isinstance(two, int) and one != two:
                yield f"{then.name!r} of shape {list(first)} and {other.name!r} of {list(second)}"
                break


def _nested(site: Site) -> Iterator[str]:
    around = [node for node in site.inside if node.op_type == "If"]
    if around:
        yield f"it stands in {around[-1].name or around[-1].outputs[0].name!r}"


# Operators that change the size of their first input, and the inputs that say to what.
_RESIZING: Mapping[str, tuple[int, ...]] = {
    "Slice": (1, 2), "Expand": (1,), "Tile": (1,), "Pad": (1,), "Resize": (2, 3), "TopK": (1,),
}  # fmt: skip


def _foreign_size(site: Site) -> Iterator[str]:
    if not any(node.op_type == "If" for node in site.inside):
        return
    resized = site.input(0)
    if resized is None or origin(resized).constant:
        return
    own = names_upstream(resized)
    for place in _RESIZING[site.node.op_type]:
        given = site.input(place)
        sizes = origin(given)
        foreign = {name for name in sizes.symbols if name is not None} - own
        if given is not None and (foreign or sizes.data or sizes.inputs):
            yield f"{given.name!r}, which says how large {resized.name!r} becomes"
            return


def _attention(site: Site) -> Iterator[str]:
    if any(node.op_type == "If" for node in site.inside):
        yield "Attention inside an If"


def _if_resize(site: Site) -> Iterator[str]:
    moved = site.input(0)
    transpose = None if moved is None else moved.producer()
    if transpose is None or transpose.op_type != "Transpose" or transpose.inputs[0] is None:
        return
    chosen = transpose.inputs[0].producer()
    if chosen is not None and chosen.op_type == "If":
        yield f"Resize of a Transpose of {chosen.name or chosen.outputs[0].name!r}"


def _body(site: Site) -> ir.Graph:
    return site.node.attributes["body"].as_graph()


def _loop_condition(site: Site) -> Iterator[str]:
    body = _body(site)
    if site.input(1) is None and len(body.inputs) > 1:
        inner = body.inputs[1]
        if inner.uses() or inner.is_graph_output():
            yield f"no initial condition, and the body reads {inner.name!r}"


def _carried(site: Site) -> list[_Pair]:
    body = _body(site)
    return list(zip(body.inputs[2:], body.outputs[1:], strict=False))


def _scan_output(site: Site) -> Iterator[str]:
    body = _body(site)
    scanned = body.outputs[1 + len(body.inputs[2:]) :]
    if scanned and site.input(0) is None:
        yield f"scan output {scanned[0].name!r} and no trip count"


def _carried_type(site: Site) -> Iterator[str]:
    for before, after in _carried(site):
        first, second = type_name(before), type_name(after)
        if first and second and first != second:
            yield f"{before.name!r} of {first.lower()} becomes {second.lower()}"


def _carried_shape(site: Site) -> Iterator[str]:
    for before, after in _carried(site):
        node = after.producer()
        first, second = dims(before), dims(after)
        grows = node is not None and node.op_type == "Concat" and before in node.inputs
        fixed = first is not None and second is not None and len(first) == len(second)
        if grows or (fixed and any(
            isinstance(one, int) and isinstance(two, int) and one != two
            for one, two in zip(first or (), second or (), strict=True)
        )):  # fmt: skip
            yield f"{before.name!r} comes back as {after.name!r}, of another shape"


_IF, _LOOP = frozenset({"If"}), frozenset({"Loop"})

CONTROL_CHECKS: Mapping[str, tuple[frozenset[str], Check]] = {
    "if-condition": (_IF, _condition),
    "if-outputs": (_IF, _outputs),
    "if-names": (_IF, _names),
    "if-type": (_IF, _type),
    "if-rank": (_IF, _rank),
    "if-shape": (_IF, _shape),
    "if-nested": (_IF, _nested),
    "if-foreign-size": (frozenset(_RESIZING), _foreign_size),
    "if-attention": (frozenset({"Attention"}), _attention),
    "if-resize": (frozenset({"Resize"}), _if_resize),
    "loop-condition": (_LOOP, _loop_condition),
    "loop-scan-output": (_LOOP, _scan_output),
    "loop-carried-type": (_LOOP, _carried_type),
    "loop-carried-shape": (_LOOP, _carried_shape),
}
"""By rule: the operators it is about, and the check."""
