"""Operators of gating and dispatch, ready for TensorRT plugins of their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphs.contracts import DOMAIN
from graphs.errors import GraphError
from graphs.moe.routing import DISPATCHERS, operator
from graphs.ops import CONTRACTS
from graphs.passes.base import PassReport

__all__ = ["GatingToPlugins"]

_CHOICES = {"TopKGating": "TopKChoice", "GroupedTopKGating": "GroupedTopKChoice"}
_PLUGGED = {*DISPATCHERS, *_CHOICES.values()}
# What the kernels take; plugins_trt/topk_gating/config.h.
_MOST = {"num_experts": 1024, "k": 32}


@dataclass(frozen=True)
class GatingToPlugins:
    """Writes every attribute onto the nodes that plugins replace, and splits gating on demand.

    A parser reads attributes off the node, not the function's defaults; without
    ``plugin_namespace`` it does not look for a plugin from TensorRT 10.15 on. The operators compute
    what they did: other runtimes run their bodies.

    Attributes:
        split: Whether gating becomes ``TopKChoice`` and ``ExpertDispatch``, one kernel each.
    """

    split: bool = False
    name: ClassVar[str] = "gating_to_plugins"

    def requires(self, model: ir.Model) -> None:
        """The kernels take so many experts and no float64."""
        for node in _plugged(model):
            for name, most in _MOST.items():
                found = node.attributes.get_int(name, 1)
                if found > most:
                    raise GraphError(
                        f"{node.op_type} {node.name!r} has {name} = {found}; "
                        f"its plugin takes up to {most}",
                        hint="build without plugins; TensorRT then runs the operator's body",
                    )
            logits = node.inputs[0]
            if logits is not None and logits.dtype == ir.DataType.DOUBLE:
                raise GraphError(
                    f"{node.op_type} {node.name!r} reads float64, which TensorRT does not have"
                )

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the names of the nodes."""
        sites = []
        for node in _plugged(model):
            sites.append(str(node.name))
            made = _parts(node, model) if self.split and node.op_type in _CHOICES else [node]
            for each in made:
                _write_attributes(each)
        _drop_unused_functions(model)
        return PassReport(self.name, tuple(sites))

    def ensures(self, model: ir.Model) -> None:
        """Every attribute of the contracts is on the nodes, in the contracts' order."""
        for node in _plugged(model):
            wanted = [attribute.name for attribute in CONTRACTS[node.op_type].attributes]
            if list(node.attributes) != wanted:
                raise GraphError(f"{node.op_type} {node.name!r} lacks attributes of its contract")


def _plugged(model: ir.Model) -> list[ir.Node]:
    return [
        node
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.domain == DOMAIN and node.op_type in _PLUGGED
    ]


def _parts(node: ir.Node, model: ir.Model) -> list[ir.Node]:
    """The choice and the dispatch in place of a gating."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    weights, ids, *dispatched = node.outputs
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    kept = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in node.outputs]
    inputs = [value for value in node.inputs if value is not None]
    name = str(node.name)
    choice = operator(_CHOICES[node.op_type], inputs, kept[:2], model, name, **attributes)
    dispatch = operator(
        "ExpertDispatch",
        [kept[1]],
        kept[2:],
        model,
        f"{name}/dispatch",
        num_experts=node.attributes.get_int("num_experts"),
    )
    graph.insert_after(node, [choice, dispatch])
    for old, new in zip((weights, ids, *dispatched), kept, strict=True):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    choice.metadata_props.update(node.metadata_props)
    dispatch.metadata_props.update(node.metadata_props)
    return [choice, dispatch]


def _write_attributes(node: ir.Node) -> None:
    """All of the contract's, in its order, which plugins without names rely on."""
    stated = dict(node.attributes)
    node.attributes.clear()
    for attribute in CONTRACTS[node.op_type].attributes:
        value = stated.get(attribute.name)
        node.attributes.add(value or _default(attribute.name, attribute.default))


def _default(name: str, value: int | float | str | None) -> ir.Attr:
    assert value is not None, f"{name} has to be on the node"
    return ir.convenience.convert_attribute(name, value)


def _drop_unused_functions(model: ir.Model) -> None:
    scopes: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    used = {
        node.op_identifier()
        for scope in scopes
        for node in ir.traversal.RecursiveGraphIterator(scope)
    }
    for key in [k for k in model.functions if k[0] == DOMAIN and k[1] in _CHOICES]:
        if key not in used:
            del model.functions[key]
