"""Part of a graph moves behind an ``If``: which nodes can, and what stands in when they do not run.

What TensorRT asks of an ``If`` is kept: a scalar condition, branches whose outputs have one shape
and type and names of their own, one level, and everything that is to be skipped inside the branch.
Initializers stay in the main graph: ONNX Runtime prepares them for its kernels from one level down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.dims import Dim, dims_of

__all__ = [
    "Additions",
    "Sizes",
    "choice",
    "has_subgraph",
    "own_nodes",
    "put_behind",
    "sizes_of",
    "upstream",
]

Sizes = Sequence[int | tuple[ir.Value, int]]
"""Each dimension of a value: its size, or an input of the graph and the axis that has it."""


class Additions:
    """Nodes and initializers appended to a graph under names with one stem."""

    def __init__(self, graph: ir.Graph, stem: str) -> None:
        self.graph = graph
        self._stem = stem

    def constant(self, label: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initializer."""
        name = f"{self._stem}/{label}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        label: str,
        op_type: str,
        inputs: Sequence[ir.Value],
        kind: ir.DataType,
        dims: Iterable[Dim],
        **attributes: int | Sequence[int] | ir.TensorProtocol,
    ) -> ir.Value:
        """The output of a node."""
        name = f"{self._stem}/{label}"
        output = ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(kind))
        self.graph.append(ir.node(op_type, inputs, attributes, outputs=[output], name=name))
        return output

    def split(self, label: str, value: ir.Value, count: int) -> list[ir.Value]:
        """The elements of a vector [count], each [1]."""
        name = f"{self._stem}/{label}"
        outputs = [
            ir.Value(name=f"{name}_{place}", shape=ir.Shape([1]), type=value.type)
            for place in range(count)
        ]
        sizes = self.constant(f"{label}_sizes", np.ones(count, np.int64))
        self.graph.append(ir.node("Split", [value, sizes], {"axis": 0}, outputs=outputs, name=name))
        return outputs


def choice(
    condition: ir.Value, then: ir.Graph, otherwise: ir.Graph, outputs: Sequence[ir.Value], name: str
) -> ir.Node:
    """An ``If`` of its own, not yet in a graph."""
    branches = {"then_branch": then, "else_branch": otherwise}
    attributes = [ir.AttrGraph(key, branch) for key, branch in branches.items()]
    return ir.Node("", "If", [condition], attributes, outputs=outputs, name=name)


def upstream(value: ir.Value) -> set[ir.Node]:
    """The nodes that a value depends on."""
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [source.producer() for source in _read(node)]
    return found


def has_subgraph(node: ir.Node) -> bool:
    """Whether a node is control flow."""
    kinds = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    return any(attribute.type in kinds for attribute in node.attributes.values())


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """A node's inputs, and what its subgraphs take from outside."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for below in attribute.as_graph().all_nodes():
                yield from (value for value in below.inputs if value is not None)


def own_nodes(output: ir.Value, graph: ir.Graph) -> list[ir.Node]:
    """The nodes that nothing but ``output`` needs, in graph order; the graph is sorted.

    None if ``output`` is not computed by a node, is an output of the graph or is used twice.
    """
    if output.producer() is None or output.is_graph_output() or len(output.uses()) != 1:
        return []
    candidates = upstream(output)
    own: set[ir.Node] = set()
    # Backwards, so that whether all readers of a node are among ours is known before the node.
    for node in reversed(graph):
        values = [value for value in node.outputs if value is not output]
        read = all(use.node in own for value in values for use in value.uses())
        if node in candidates and read and not any(v.is_graph_output() for v in values):
            own.add(node)
    return [node for node in graph if node in own]


def sizes_of(value: ir.Value, graph: ir.Graph) -> Sizes | None:
    """The dimensions of a value; None where one is not among the named ones of the inputs."""
    known: dict[Dim, tuple[ir.Value, int]] = {}
    for given in graph.inputs:
        for axis, dim in enumerate(dims_of(given.shape) if given.shape is not None else ()):
            known.setdefault(dim, (given, axis))
    found: list[int | tuple[ir.Value, int]] = []
    for dim in dims_of(value.shape) if value.shape is not None else (None,):
        if not isinstance(dim, int) and (dim is None or dim not in known):
            return None
        found.append(dim if isinstance(dim, int) else known[dim])
    return found


def put_behind(
    condition: ir.Value, output: ir.Value, own: Sequence[ir.Node], sizes: Sizes, graph: ir.Graph
) -> ir.Node:
    """Compute ``output`` only if ``condition`` holds; it is zeros otherwise.

    Args:
        condition: A scalar, bool.
        output: What ``own`` compute; the ``If`` gives a value of this name.
        own: As ``own_nodes`` gives them.
        sizes: As ``sizes_of`` gives them.
        graph: The main graph.
    """
    name, dtype, last = str(output.name), output.dtype, output.producer()
    assert dtype is not None
    assert last is not None
    result = ir.Value(name=name, shape=output.shape, type=output.type)
    output.replace_all_uses_with(result)
    output.name = f"{name}/run"
    shape = _shape(Additions(graph, f"{name}/skip"), sizes)
    graph.remove(own)
    zero = ir.AttrTensor("value", ir.tensor(np.zeros(1, dtype.numpy()), dtype=dtype))
    nothing = ir.Value(name=f"{name}/skipped", shape=output.shape, type=output.type)
    filled = ir.Node("", "ConstantOfShape", [shape], [zero], outputs=[nothing], name=nothing.name)
    node = choice(
        condition,
        ir.Graph([], [output], nodes=own, name=f"{name}/then"),
        ir.Graph([], [nothing], nodes=[filled], name=f"{name}/else"),
        [result],
        f"{name}/skip",
    )
    node.metadata_props.update(last.metadata_props)
    graph.append(node)
    return node


def _shape(added: Additions, sizes: Sizes) -> ir.Value:
    """A shape, int64 [rank], of sizes that are known and of sizes that inputs have."""
    parts = []
    for place, size in enumerate(sizes):
        if isinstance(size, int):
            parts.append(added.constant(f"size_{place}", np.array([size], np.int64)))
        else:
            given, axis = size
            part = added.node(
                f"size_{place}", "Shape", [given], ir.DataType.INT64, [1], start=axis, end=axis + 1
            )
            parts.append(part)
    return added.node("shape", "Concat", parts, ir.DataType.INT64, [len(parts)], axis=0)
