"""Whether operators get types that they take."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphs.tensorrt.model_checks import Found
from graphs.tensorrt.operators import TYPE_EXCEPTIONS, TYPES
from graphs.tensorrt.rules import RULES
from graphs.tensorrt.sites import Site, sites, type_name
from graphs.tensorrt.spans import ALL_RTX, ALL_TENSORRT, Limits

__all__ = ["type_checks"]

_TRIED = Limits(ALL_TENSORRT, ALL_RTX, "RTX 1.7.1; operators.md is no wider")


def type_checks(model: ir.Model) -> Iterator[tuple[Found, Limits]]:
    """Every operator that gets a type it does not take, and the versions that refuse it."""
    for site in sites(model):
        yield from _table(site)
        yield from _exceptions(site)
        yield from _mod(site)
        yield from _uint8(site)


def _typed(site: Site) -> Iterator[tuple[str, str]]:
    """Name and type of every value that ``TYPES`` speaks of."""
    row = TYPES.get(site.node.op_type)
    if row is None:
        return
    values = [site.input(place) for place in row.inputs] or [site.node.outputs[0]]
    if site.node.op_type in {"Concat", "Mean", "Sum", "Max", "Min"}:
        values = list(site.node.inputs)
    for value in values:
        if value is not None and type_name(value):
            yield str(value.name), type_name(value)


def _table(site: Site) -> Iterator[tuple[Found, Limits]]:
    for name, kind in _typed(site):
        if kind not in TYPES[site.node.op_type].allowed:
            yield _found(site, name, kind), _TRIED
            return


def _exceptions(site: Site) -> Iterator[tuple[Found, Limits]]:
    for exception in TYPE_EXCEPTIONS:
        if exception.operator != site.node.op_type:
            continue
        for name, kind in _typed(site):
            if kind in exception.types:
                yield _found(site, name, kind), exception.limits


def _mod(site: Site) -> Iterator[tuple[Found, Limits]]:
    """With fmod 0 Mod is for whole numbers, and otherwise for floats as well."""
    if site.node.op_type != "Mod" or int(site.node.attributes.get_int("fmod", 0) or 0):
        return
    value = site.input(0)
    kind = type_name(value)
    if value is not None and kind and kind not in {"INT32", "INT64"}:
        yield _found(site, str(value.name), kind), _TRIED


def _found(site: Site, name: str, kind: str) -> Found:
    return "operator-type", site.name, site.node.op_type, f"{name!r} of {kind.lower()}"


def _uint8(site: Site) -> Iterator[tuple[Found, Limits]]:
    limits = RULES["uint8-inside"].limits
    assert limits is not None
    for value in site.node.outputs if site.node.op_type != "Constant" else ():
        if type_name(value) == "UINT8" and not _goes_out(value, site):
            found = f"{value.name!r}, which is computed and read again"
            yield ("uint8-inside", site.name, site.node.op_type, found), limits


def _goes_out(value: ir.Value, site: Site) -> bool:
    quantized = all(use.node.op_type == "DequantizeLinear" for use in value.uses())
    return (not site.inside and value.is_graph_output()) or (quantized and bool(value.uses()))
