"""A sparse sum over experts, found in a graph, becomes the operators that our exports write."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import Dim, dims_of
from graphs.moe.alike import ExpertSet, Step
from graphs.moe.linears import Linear, NotExpertsError
from graphs.moe.routing import operator
from graphs.moe.row_wise import axes_input, constant_of
from graphs.moe.slabs import Stacked
from graphs.moe.trials import SparseSum

__all__ = ["add_slab", "rebuild", "refuse_mixed_rows", "slots_name", "take_place"]

_INT = ir.DataType.INT64


def rebuild(found: SparseSum, experts: ExpertSet, model: ir.Model) -> str:
    """Put ``ExpertLinear``, the row-wise nodes and the weighted sum where ``found.output`` was.

    The weights of experts are not read. Gives the name of the last linear layer.
    """
    added = Additions(model.graph, f"{found.output.name}/moe")
    building = _Building(found, experts, model, added, refuse_mixed_rows(experts))
    x, ids = found.x, found.ids
    x = x if len(dims_of(x.shape)) == 2 else building.flat("tokens", x, dims_of(x.shape)[-1])
    if found.ranks[0] == 2:
        ids.shape = ir.Shape([None, found.top_k])
    else:
        ids = building.flat("ids", ids, found.top_k)
    building.mapped[experts.inputs[0]] = x
    last = ""
    for step in experts.steps:
        if step.linears:
            last = building.linear(step, ids)
        else:
            building.copy(step.node)
    rows = building.mapped[building.end]
    take_place(found.output, building.summed(rows, ids), model.graph)
    return last


def refuse_mixed_rows(experts: ExpertSet) -> set[ir.Value]:
    """The values of an expert that have a row for each token; others have one for each slot.

    Raises:
        NotExpertsError: If an operator reads both.
    """
    tokens, slots = {experts.inputs[0]}, set[ir.Value]()
    for step in experts.steps:
        kinds = [kind for kind in (tokens, slots) if any(v in kind for v in step.node.inputs)]
        if step.linears:
            slots.update(step.outputs)
        elif len(kinds) > 1:
            raise NotExpertsError("its experts read their tokens again behind a linear layer")
        else:
            for kind in kinds:
                kind.update(step.outputs)
    if experts.outputs[0] not in slots:
        raise NotExpertsError("its experts end in no linear layer")
    return tokens


def take_place(old: ir.Value, new: ir.Value, graph: ir.Graph) -> None:
    """Readers of ``old`` read ``new``, which takes over its name; what nothing reads goes."""
    name, shape, node = old.name, old.shape, old.producer()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or node.graph is None:
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        read = [value for value in node.inputs if value is not None]
        graph.remove(node, safe=True)
        for value in read:
            waiting.append(value.producer())
            unread = not value.uses() and not value.is_graph_output()
            if unread and value.is_initializer() and not value.is_graph_input():
                graph.initializers.pop(str(value.name), None)
    old.name = f"{name}/before"
    new.name, new.shape = name, shape


def slots_name(node: ir.Node) -> str:
    """What the node that takes a node's place is called.

    TorchScript's exporter begins names with a slash, which in metadata would look like a path.
    """
    return f"{node.name}/slots".lstrip("/")


def add_slab(name: str, tensor: ir.TensorProtocol, graph: ir.Graph) -> ir.Value:
    """An initializer."""
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
    )
    value.const_value = tensor
    graph.register_initializer(value)
    return value


@dataclass
class _Building:
    found: SparseSum
    experts: ExpertSet
    model: ir.Model
    added: Additions
    tokens: set[ir.Value]
    mapped: dict[ir.Value, ir.Value] = field(default_factory=dict)

    @property
    def end(self) -> ir.Value:
        """What the first expert gives."""
        return self.experts.outputs[0]

    def flat(self, label: str, value: ir.Value, width: Dim) -> ir.Value:
        """Rows [T, width] of a value with more axes."""
        assert isinstance(width, int)
        assert value.dtype is not None
        shape = self.added.constant(f"{label}_shape", np.array([-1, width], np.int64))
        return self.added.node(label, "Reshape", [value, shape], value.dtype, [None, width])

    def linear(self, step: Step, ids: ir.Value) -> str:
        first = step.linears[0]
        name = slots_name(step.node)
        x = self.mapped[first.x]
        inputs = [x, ids, self._slab(step.linears, name)]
        if first.bias is not None:
            inputs.append(self._bias(step.linears, name))
        spread = self.found.top_k if first.x in self.tokens else 1
        output = self._slots(first.output, name, first.width)
        kind = "ExpertLinear" if first.bias is None else "ExpertLinearBias"
        node = operator(kind, inputs, [output], self.model, name, spread=spread)
        node.metadata_props.update(step.node.metadata_props)
        self.model.graph.append(node)
        self.mapped[first.output] = output
        return name

    def copy(self, node: ir.Node) -> None:
        """A row-wise node on rows [n, .]: its last axis is 1."""
        inputs = [None if value is None else self.mapped.get(value, value) for value in node.inputs]
        place = axes_input(node)
        name = slots_name(node)
        if place is not None:
            axes = Additions(self.model.graph, name)
            inputs[place] = axes.constant("axes", np.array([1], np.int64))
        own = [
            ir.AttrInt64("axis", 1) if each.name == "axis" else each
            for each in node.attributes.values()
        ]
        outputs = [
            self._slots(value, f"{value.name}/slots", dims_of(value.shape)[-1])
            for value in node.outputs
        ]
        copied = ir.Node("", node.op_type, inputs, own, outputs=outputs, name=name)
        copied.metadata_props.update(node.metadata_props)
        self.model.graph.append(copied)
        self.mapped.update(zip(node.outputs, outputs, strict=True))

    def summed(self, rows: ir.Value, ids: ir.Value) -> ir.Value:
        """Slots [T * k, U] weighted and summed, laid out as the output was."""
        added, found, width = self.added, self.found, self.experts.linears[-1].width
        weights, kind, output = self._weights(ids), rows.dtype, found.output
        assert kind is not None
        assert weights.dtype is not None
        cube = added.constant("cube", np.array([-1, found.top_k, width], np.int64))
        dims: list[Dim] = [None, found.top_k, width]
        slots = added.node("choices", "Reshape", [rows, cube], kind, dims)
        if weights.dtype != kind:
            slots = added.node("cast", "Cast", [slots], weights.dtype, dims, to=weights.dtype)
        last = added.constant("last", np.array([-1], np.int64))
        column = added.node(
            "column", "Unsqueeze", [weights, last], weights.dtype, [None, found.top_k, 1]
        )
        weighted = added.node("weighted", "Mul", [slots, column], weights.dtype, dims)
        axis = added.constant("axis", np.array([1], np.int64))
        total = added.node(
            "sum", "ReduceSum", [weighted, axis], weights.dtype, [None, width], keepdims=0
        )
        if output.dtype is not None and output.dtype != weights.dtype:
            total = added.node("back", "Cast", [total], output.dtype, [None, width],
                               to=output.dtype)  # fmt: skip
        if found.ranks[2] == 2:
            return total
        before = added.node("leading", "Shape", [found.x], _INT, [2], start=0, end=2)
        sizes = added.constant("width", np.array([width], np.int64))
        shape = added.node("shape", "Concat", [before, sizes], _INT, [3], axis=0)
        assert total.dtype is not None
        return added.node("y", "Reshape", [total, shape], total.dtype, [None, None, width])

    def _weights(self, ids: ir.Value) -> ir.Value:
        """[T, k]."""
        value, found = self.found.weights, self.found
        width = self.experts.count if found.per_expert else found.top_k
        if found.ranks[1] != 2:
            value = self.flat("weights", value, width)
        if not found.per_expert:
            return value
        assert value.dtype is not None
        dims = [None, found.top_k]
        return self.added.node("chosen", "GatherElements", [value, ids], value.dtype, dims, axis=1)

    def _slots(self, value: ir.Value, name: str, width: Dim) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([None, width]), type=value.type)

    def _slab(self, linears: tuple[Linear, ...], name: str) -> ir.Value:
        """[E, U, D]: the weight of all, or those of each stacked; seen through a Transpose."""
        first = linears[0]
        value = first.weight
        if first.axis is None:
            parts = [constant_of(linears[place].weight) for place in self.found.order]
            known = [part for part in parts if part is not None]
            value = add_slab(f"{name}/weight", Stacked(known, f"{name}/weight"), self.model.graph)
        elif value.const_value is None:
            tensor = constant_of(value)
            assert tensor is not None
            value = add_slab(f"{name}/weight", tensor, self.model.graph)
        if not first.transposed:
            return value
        count, wide, high = dims_of(value.shape)
        added = Additions(self.model.graph, name)
        assert value.dtype is not None
        return added.node(
            "matrices", "Transpose", [value], value.dtype, [count, high, wide], perm=(0, 2, 1)
        )

    def _bias(self, linears: tuple[Linear, ...], name: str) -> ir.Value:
        """[E, U]."""
        values = [linear.bias for linear in linears if linear.bias is not None]
        tensors = [tensor for value in values if (tensor := constant_of(value)) is not None]
        if linears[0].axis is None:
            flat = [_reshaped(tensor, [linears[0].width]) for tensor in tensors]
            stacked = Stacked([flat[place] for place in self.found.order], f"{name}/bias")
            return add_slab(f"{name}/bias", stacked, self.model.graph)
        wanted = [self.experts.count, linears[0].width]
        if values[0].const_value is not None and list(tensors[0].shape.numpy()) == wanted:
            return values[0]
        return add_slab(f"{name}/bias", _reshaped(tensors[0], wanted), self.model.graph)


def _reshaped(tensor: ir.TensorProtocol, sizes: list[int]) -> ir.TensorProtocol:
    if list(tensor.shape.numpy()) == sizes:
        return tensor
    return ir.Tensor(tensor.numpy().reshape(sizes).copy(), dtype=tensor.dtype, name=tensor.name)
