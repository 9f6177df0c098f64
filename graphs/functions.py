"""Merge the members' model-local functions into one table."""

from __future__ import annotations

import re

import onnx_ir as ir

__all__ = ["merge_functions"]


def merge_functions(
    table: dict[ir.OperatorIdentifier, ir.Function], model: ir.Model, member: str
) -> None:
    """Add the functions of ``model`` to ``table``; its calls are renamed in place.

    A function that is in the table already, same key and same body, is used as it is. A function
    whose name is taken by another is renamed ``<member>__<name>``: TensorRT's parser ignores
    domain and overload, so names must differ across all of them.
    """
    for function in _callees_first(model):
        old = function.identifier()
        present = table.get(old)
        if present is not None and _body(present) == _body(function):
            continue
        if any(function.name == key[1] for key in table):
            function.name = _unused(f"{member}__{function.name}", table)
            function.overload = ""
        _rename_calls(model, old, function)
        table[function.identifier()] = function


def _callees_first(model: ir.Model) -> list[ir.Function]:
    """So that a body is compared after the calls in it carry their final names."""
    ordered: dict[ir.OperatorIdentifier, ir.Function] = {}

    def visit(key: ir.OperatorIdentifier) -> None:
        if key in ordered or key not in model.functions:
            return
        for node in ir.traversal.RecursiveGraphIterator(model.functions[key]):
            visit(node.op_identifier())
        ordered[key] = model.functions[key]

    for key in list(model.functions):
        visit(key)
    return list(ordered.values())


def _body(function: ir.Function) -> bytes:
    proto = ir.serde.serialize_function(function)
    proto.ClearField("doc_string")
    proto.ClearField("metadata_props")
    for node in proto.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    proto.ClearField("value_info")
    body: bytes = proto.SerializeToString(deterministic=True)
    return body


def _rename_calls(model: ir.Model, old: ir.OperatorIdentifier, function: ir.Function) -> None:
    if function.identifier() == old:
        return
    scopes: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in scopes:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            if node.op_identifier() == old:
                node.op_type, node.overload = function.name, function.overload


def _unused(name: str, table: dict[ir.OperatorIdentifier, ir.Function]) -> str:
    stem = re.sub(r"\W", "_", name)
    taken = {key[1] for key in table}
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}_{count}"
    return candidate
