"""What a builder can be held against: the float types of a graph, its conditionals, its origins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.inlining import inline_functions
from graphs.origin import MEMBER
from graphs.passes.strip_exporter_metadata import MODULE, SOURCE
from graphs.tensors import nodes_of, values_of

__all__ = ["Census", "Origin", "census", "origins"]

# Attributes that hold a data type: of Cast, of random operators, of quantisation.
_TYPES = ("to", "dtype", "output_dtype")
_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Census:
    """Of a graph whose functions are inlined, subgraphs included.

    Attributes:
        floats: Names of the floating-point types that values have.
        conditionals: How many ``If`` nodes.
        unconditional: How many of those have a condition that is stored in the file.
        operators: How many nodes of each operator, most frequent first.
    """

    floats: frozenset[str]
    conditionals: int
    unconditional: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a node came from; what is not known is empty.

    Attributes:
        member: The member of the ensemble, or several.
        module: Dotted path of its PyTorch module.
        source: PyTorch operator and line of code.
    """

    member: str
    module: str
    source: str

    def __str__(self) -> str:
        parts = (
            f"member {self.member}" if self.member else "",
            f"module {self.module}" if self.module else "",
            f"from {self.source}" if self.source else "",
        )
        return ", ".join(filter(None, parts))


def census(path: Path) -> Census:
    """Count, without reading weights.

    Raises:
        GraphError: If the file cannot be read.
    """
    model = store.load(path)
    inline_functions(model)
    chosen = [node for node in nodes_of(model) if node.op_type == "If" and not node.domain]
    stored = sum(1 for node in chosen if _is_stored(node.inputs[0]))
    types = {value.dtype for value in values_of(model) if value.dtype is not None}
    types |= set(_named_types(model))
    floats = {str(each).lower() for each in types if each.is_floating_point()}
    operators = Counter(node.op_type for node in nodes_of(model))
    names = frozenset(_NAMES.get(name, name) for name in floats)
    return Census(names, len(chosen), stored, dict(operators.most_common()))


def _is_stored(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is not None:
        return producer.op_type == "Constant" and not producer.domain
    return value is not None and value.const_value is not None


def _named_types(model: ir.Model) -> Iterator[ir.DataType]:
    for node in nodes_of(model):
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor().dtype
            elif attribute.type in {ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}:
                if node.op_type == "Constant":
                    yield ir.DataType.FLOAT
            elif name in _TYPES and attribute.type == ir.AttributeType.INT:
                yield ir.DataType(attribute.as_int())


def origins(path: Path) -> Mapping[str, Origin]:
    """By name, nodes of the graph, its subgraphs and its functions that say where they came from.

    Raises:
        GraphError: If the file cannot be read.
    """
    model = store.load(path)
    bodies = (node for function in model.functions.values() for node in function)
    found = {}
    for node in (*nodes_of(model), *bodies):
        props = node.metadata_props
        origin = Origin(*(props.get(key, "") for key in (MEMBER, MODULE, SOURCE)))
        if node.name and str(origin):
            found[node.name] = origin
    return found
