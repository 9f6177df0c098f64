"""Replace an exporter's traces by readable names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphs.errors import GraphError
from graphs.ops import DOMAIN
from graphs.origin import MEMBER, members_of, source_expression
from graphs.passes.base import NearMiss, PassReport
from graphs.tensors import graphs_of, nodes_of, values_of

__all__ = ["MODULE", "SOURCE", "StripExporterMetadata"]

# The keys a node keeps: the dotted path of its PyTorch module, its member in an ensemble, and the
# operator and line of code it comes from, so that a proof that fails can name them.
MODULE = "module"
SOURCE = "source"
_KEPT = {MODULE, MEMBER, SOURCE}
_NAMED = 3  # members of a shared node that its name lists; of more, the first and how many others
_SCOPES = "pkg.torch.onnx.name_scopes"
_Annotated = ir.Node | ir.Value | ir.Graph | ir.Function


@dataclass(frozen=True)
class StripExporterMetadata:
    """Keeps each node's module and expression; drops stack traces, paths and documentation.

    Cases:

    1. a node with ``pkg.torch.onnx.name_scopes`` gets ``module`` (the innermost scope) and the
       name ``<member>/<module>/<op type>``, numbered in graph order where several agree, and
       ``source``: the PyTorch operator and the line of code, without its file;
    2. a node without scopes keeps its name and loses the rest;
    3. scopes that are no list of strings are a near miss, and the node is treated as in 2;
    4. of the model's own metadata only keys of the exporter (``pkg.…``) are dropped.
    """

    name: ClassVar[str] = "strip_exporter_metadata"

    def requires(self, model: ir.Model) -> None:
        """Any graph will do."""

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are nodes (by their new names) and values that lost something."""
        misses: list[NearMiss] = []
        sites = (
            *_rename_nodes(model, misses),
            *[str(value.name) for value in values_of(model) if _strip(value)],
            *[graph.name or "graph" for graph in graphs_of(model) if _strip(graph)],
            *_strip_functions(model),
            *(["model"] if _strip_model(model) else []),
        )
        return PassReport(self.name, sites, tuple(misses))

    def ensures(self, model: ir.Model) -> None:
        """No node or value carries a key but ``module``, ``member`` and ``source``."""
        things: list[_Annotated] = [*nodes_of(model), *values_of(model), *graphs_of(model)]
        for thing in things:
            extra = set(thing.metadata_props) - _KEPT
            if extra or thing.doc_string:
                left = sorted(extra) or ["documentation"]
                raise GraphError(f"{self.name} left {left[0]!r} on {thing.name!r}")


def _rename_nodes(model: ir.Model, misses: list[NearMiss]) -> Iterator[str]:
    scopes = {id(node): _module(node, misses) for node in nodes_of(model)}
    taken = {node.name for node in nodes_of(model) if scopes[id(node)] is None}
    for node in nodes_of(model):
        module = scopes[id(node)]
        if module is not None:
            node.metadata_props[MODULE] = module
            if expression := source_expression(node.metadata_props):
                node.metadata_props[SOURCE] = expression
            node.name = _unused(_stem(node, module), taken)
            taken.add(node.name)
        if _strip(node) or module is not None:
            yield node.name or node.op_type


def _module(node: ir.Node, misses: list[NearMiss]) -> str | None:
    """The innermost module of scopes such as ``['', 'blocks.0', 'blocks.0.lin', 'linear']``.

    The last scope is the name of the traced call, which is no module.
    """
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return None
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        scopes = None
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        misses.append(NearMiss(node.name or node.op_type, f"{_SCOPES} is no list: {text[:60]!r}"))
        return None
    return scopes[-2] if len(scopes) > 1 else ""


def _stem(node: ir.Node, module: str) -> str:
    members = members_of(node)
    member = "+".join(members if len(members) <= _NAMED else (members[0], str(len(members) - 1)))
    return "/".join(part for part in (member, module, node.op_type) if part)


def _unused(stem: str, taken: set[str | None]) -> str:
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def _strip(thing: _Annotated) -> bool:
    extra = set(thing.metadata_props) - _KEPT
    for key in extra:
        del thing.metadata_props[key]
    documented = bool(thing.doc_string)
    thing.doc_string = None
    if isinstance(thing, ir.Value) and thing.const_value is not None:
        documented |= _strip_tensor(thing.const_value)
    return bool(extra) or documented


def _strip_tensor(tensor: ir.TensorProtocol) -> bool:
    found = bool(tensor.doc_string) or bool(tensor.metadata_props)
    if isinstance(tensor, ir.TensorProtoTensor):
        tensor.raw.ClearField("doc_string")
        tensor.raw.ClearField("metadata_props")
    else:
        tensor.doc_string = None
    tensor.metadata_props.clear()
    return found


def _strip_functions(model: ir.Model) -> Iterator[str]:
    for function in model.functions.values():
        summary = function.doc_string if function.domain == DOMAIN else None
        inner = (value for node in function for value in node.outputs)
        things: tuple[_Annotated, ...] = (*function, *function.inputs, *inner)
        stripped = [_strip(thing) for thing in things]
        if (_strip(function) and summary is None) or any(stripped):
            yield function.name
        # What an operator of ours computes is its documentation, not a trace.
        function.doc_string = summary


def _strip_model(model: ir.Model) -> bool:
    extra = [key for key in model.metadata_props if key.startswith("pkg.")]
    for key in extra:
        del model.metadata_props[key]
    documented = bool(model.doc_string)
    model.doc_string = None
    return bool(extra) or documented
