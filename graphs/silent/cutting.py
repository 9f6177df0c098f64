"""One down projection as a model of its own, to measure by what silence skipping it pays."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.errors import GraphError
from graphs.silent.layers import downs_of

__all__ = ["cut_silent"]


def cut_silent(path: Path, name: str, out: Path) -> None:
    """Write one layer alone: ``x`` [T, F] in, ``y = Relu(x) @ W`` [T, H] out, its bias included.

    Raises:
        GraphError: If the file cannot be used or has no such layer.
    """
    model = store.load(path)
    down = next((d for d in downs_of(model.graph)[0] if d.name == name), None)
    if down is None:
        raise GraphError(f"{path} has no down projection after a ReLU named {name!r}")
    graph, node, linear = model.graph, down.node, down.linear
    kind = ir.TensorType(linear.weight.dtype or ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape(["tokens", down.neurons]), type=kind)
    a = ir.Value(name="a", shape=x.shape, type=kind)
    y = node.outputs[0]
    y.replace_all_uses_with(ir.Value(name="unread"), replace_graph_outputs=True)
    node.replace_input_with(0, a)
    helpers = [each.producer() for each in node.inputs if each is not None and each is not a]
    before = [each for each in helpers if each is not None]
    kept = [*before, node]
    read = {value for each in kept for value in each.inputs if value is not None}
    constants = [value for value in graph.initializers.values() if value in read]
    for value in constants:
        del graph.initializers[str(value.name)]
    graph.remove(kept)
    y.name, y.shape = "y", ir.Shape(["tokens", linear.width])
    relu = ir.node("Relu", [x], outputs=[a], name="relu")
    part = ir.Graph(
        [x], [y], nodes=[relu, *kept], initializers=constants,
        opset_imports={"": graph.opset_imports[""]}, name="cut",
    )  # fmt: skip
    part.sort()
    store.save(ir.Model(part, ir_version=store.IR_VERSION), out)
