"""The nodes and constants that combining adds to a fused graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.dims import Dim
from graphs.ops import CONTRACTS, DOMAIN

__all__ = ["FLOATS", "Nodes"]

FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass
class Nodes:
    """What combining adds to the fused graph, in order."""

    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        like: ir.TypeProtocol | None,
        dims: Sequence[Dim],
        **attributes: int | Sequence[int],
    ) -> ir.Node:
        """Append a node with one output of the type ``like``."""
        domain = DOMAIN if op_type in CONTRACTS else ""
        output = ir.Value(shape=ir.Shape(dims), type=like)
        node = ir.node(op_type, inputs, attributes, domain=domain, outputs=[output])
        self.nodes.append(node)
        return node

    def axis(self) -> ir.Value:
        """The axis along which members are stacked, one initializer for all ensembles."""
        if not self.initializers:
            self.constant("interpolation/axis", np.array([0], np.int64))
        return self.initializers[0]

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Append an initializer."""
        tensor = ir.tensor(array, name=name)
        dims = ir.Shape(array.shape)
        value = ir.Value(name=name, shape=dims, type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.initializers.append(value)
        return value
