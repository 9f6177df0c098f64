"""The weights of experts one by one: views of the bytes where they lie, never copies.

A checkpoint keeps the matrices of all experts in one tensor [E, U, D]. An expert's part is a range
of its bytes, so E initializers that name ranges of the same data file take no memory, and saving
writes them one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphs.tensors import SMALL

__all__ = ["Slab", "Slabs", "Stacked", "slab_of"]

_LAST_TWO_SWAPPED = [0, 2, 1]


@dataclass(frozen=True)
class Slab:
    """The constant that the weights of all experts lie in.

    Attributes:
        value: The initializer, [E, U, D], or [E, D, U] if transposed, or a bias [E, U].
        transposed: Whether the graph swaps the last two axes.
    """

    value: ir.Value
    transposed: bool


class Stacked(ir.LazyTensor):
    """Tensors of one shape as one, [E, ..]: read from where they lie when somebody asks for it."""

    def __init__(self, parts: Sequence[ir.TensorProtocol], name: str) -> None:
        self.parts = tuple(parts)
        first = self.parts[0]
        sizes = [len(self.parts), *first.shape.numpy()]
        super().__init__(self._stack, first.dtype, ir.Shape(sizes), name=name)

    def _stack(self) -> ir.TensorProtocol:
        array = np.stack([part.numpy() for part in self.parts])
        return ir.Tensor(array, dtype=self.dtype, name=self.name)


def slab_of(value: ir.Value) -> Slab | None:
    """The constant behind an input of ``ExpertLinear``; None where it is computed otherwise."""
    if value.const_value is not None:
        return Slab(value, transposed=False)
    node = value.producer()
    if node is None or node.op_type != "Transpose" or node.inputs[0] is None:
        return None
    perm = node.attributes.get_ints("perm", ())
    if list(perm) != _LAST_TWO_SWAPPED or node.inputs[0].const_value is None:
        return None
    return Slab(node.inputs[0], transposed=True)


@dataclass
class Slabs:
    """Each expert's part of the slabs of one graph, made once."""

    graph: ir.Graph
    _parts: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)

    def parts(self, slab: Slab) -> list[ir.Value]:
        """An initializer for every expert, named ``<slab>.<expert>``."""
        if slab.value not in self._parts:
            self._parts[slab.value] = self._split(slab.value)
        return self._parts[slab.value]

    def drop_unused(self) -> None:
        """Take the slabs that nothing reads any more out of the graph."""
        for value in self._parts:
            for use in list(value.uses()):
                if use.node.op_type == "Transpose" and not use.node.outputs[0].uses():
                    self.graph.remove(use.node, safe=True)
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[str(value.name)]

    def _split(self, value: ir.Value) -> list[ir.Value]:
        tensor = value.const_value
        assert tensor is not None
        count, *rest = tensor.shape.numpy()
        parts = []
        for expert in range(count):
            name = f"{value.name}.{expert}"
            part = ir.Value(name=name, shape=ir.Shape(rest), type=ir.TensorType(tensor.dtype))
            part.const_value = _part(tensor, expert, rest, name)
            self.graph.register_initializer(part)
            parts.append(part)
        return parts


def _part(tensor: ir.TensorProtocol, expert: int, shape: list[int], name: str) -> ir.TensorProtocol:
    if isinstance(tensor, Stacked):
        return tensor.parts[expert]
    size = int(np.prod(shape)) * tensor.dtype.itemsize
    if isinstance(tensor, ir.ExternalTensor) and size == int(size) and size >= SMALL:
        return ir.ExternalTensor(
            tensor.location,
            (tensor.offset or 0) + expert * int(size),
            int(size),
            tensor.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=Path(tensor.base_dir),
        )
    array = tensor.numpy()[expert]
    kept = array.copy() if isinstance(tensor, ir.ExternalTensor) else array
    return ir.Tensor(kept, dtype=tensor.dtype, name=name)
