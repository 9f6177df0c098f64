"""Put the bodies of model-local functions in place of their calls, under names that stay put."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["CALL", "inline_functions"]

# The key under which a node of a body keeps the name of the call it stands in for.
CALL = "call"
_OUTPUTS = "outputs"  # their names inside the function, before the library numbers them


def inline_functions(model: ir.Model) -> None:
    """Replace every call in place; values of a body start with the name of the call.

    A node of a body is called what its first output is called.

    The library numbers names that clash, so that one more call would rename the values of all the
    others; two versions of a graph could then not be compared by name.
    """
    if not model.functions:
        return
    before = set(model.graph)
    for node in before:
        if node.op_identifier() in model.functions:
            node.metadata_props[CALL] = node.name or str(node.outputs[0].name)
    for function in model.functions.values():
        for node in function:
            node.metadata_props[_OUTPUTS] = "\n".join(str(value.name) for value in node.outputs)
    # A call's own outputs keep their names, so they are not among the new ones.
    known = {value.name for node in before for value in node.outputs}
    common.InlinePass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    taken = {value.name for node in model.graph for value in node.outputs}
    for node in model.graph:
        call = node.metadata_props.get(CALL)
        names = node.metadata_props.pop(_OUTPUTS, "").split("\n")
        if call is None or node in before:
            continue
        for value, name in zip(node.outputs, names, strict=True):
            if value.name and value.name not in known:
                value.name = _unused(f"{call}/{name}", taken)
        node.name = str(node.outputs[0].name)


def _unused(stem: str, taken: set[str | None]) -> str:
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name
