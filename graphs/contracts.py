"""What the contract of an operator of ours says, and how it becomes a function."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx import parser

__all__ = [
    "DOMAIN",
    "FLOATS",
    "MIN_OPSET",
    "VERSION",
    "WEIGHTS",
    "Attribute",
    "Contract",
    "Parameter",
]

DOMAIN = "toolkit"
VERSION = 1
# ReduceMax and ReduceSum take their axes as an input from opset 18 on.
MIN_OPSET = 18

FLOATS = ("float16", "bfloat16", "float32", "float64")
WEIGHTS = ("float32", "float64")


@dataclass(frozen=True)
class Parameter:
    """One input or output: its name, the dtypes it may have, its shape by dimension names."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name, ``int``, ``float`` or ``string``, and its default, if it has one."""

    name: str
    type: str
    default: int | float | str | None = None

    def declared(self) -> str:
        """As a function's signature in ONNX's text form says it."""
        if self.default is None:
            return self.name
        shown = f'"{self.default}"' if isinstance(self.default, str) else self.default
        return f"{self.name}: {self.type} = {shown}"


@dataclass(frozen=True)
class Contract:
    """An operator: what goes in, what comes out, and a body that defines what it computes.

    Attributes:
        name: The operator's name, unique among all domains.
        summary: The equation.
        inputs: In order.
        outputs: In order.
        attributes: What a node says besides; those without a default have to be said.
        body: Statements of the function in ONNX's text form.
    """

    name: str
    summary: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    body: str
    attributes: tuple[Attribute, ...] = ()

    def function(self, opset: int) -> ir.Function:
        """The operator as a model-local function that imports ``opset`` (at least 18)."""
        inputs = ", ".join(parameter.name for parameter in self.inputs)
        outputs = ", ".join(parameter.name for parameter in self.outputs)
        declared = ", ".join(attribute.declared() for attribute in self.attributes)
        attributes = f"<{declared}> " if declared else ""
        proto = parser.parse_function(
            f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
            f"{self.name} {attributes}({inputs}) => ({outputs})\n{{{self.body}}}"
        )
        proto.doc_string = self.summary
        return ir.serde.deserialize_function(proto)
