"""Experts that gather a weight matrix for every slot, as transformers' ``batched_mm`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions
from graphs.dims import dims_of
from graphs.moe.cuts import cut_above, leading_of
from graphs.moe.linears import NotExpertsError
from graphs.moe.rebuilding import slots_name, take_place
from graphs.moe.routing import operator
from graphs.moe.row_wise import constant_of
from graphs.near_miss import NearMiss

__all__ = ["replace_gathered"]

_SHAPES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_MOVES = _SHAPES | {"Expand", "Gather", "GatherND", "Tile"}


@dataclass(frozen=True)
class _Gathered:
    """A product of a gathered matrix and the row of a slot.

    Attributes:
        matrices: The constant [E, U, D], or [E, D, U] if ``transposed``.
        transposed: Whether a matrix lies as [D, U].
        ids: Of the experts of each token, [.., k].
        rows: [S, D], a row for each slot.
        bias: The constant [E, U] whose rows are gathered too.
        output: [S, U].
        node: The product.
    """

    matrices: ir.Value
    transposed: bool
    ids: ir.Value
    rows: ir.Value
    bias: ir.Value | None
    output: ir.Value
    node: ir.Node


def replace_gathered(model: ir.Model) -> tuple[list[str], list[NearMiss]]:
    """Put ``ExpertLinear`` where matrices of experts are gathered; gives its nodes and misses.

    What it computes is the same by definition. That slots read rows of tokens, k in a row, is
    established by running what lies between.
    """
    graph, sites, misses = model.graph, list[str](), list[NearMiss]()
    order = {node: place for place, node in enumerate(graph)}
    flat: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        ids = _choice(node, 3)
        if ids is None:
            continue
        try:
            sites.append(_replace(_product(node, ids), flat, model, order))
        except NotExpertsError as reason:
            misses.append(NearMiss(str(node.name), str(reason)))
    for node in list(graph) if sites else ():
        _drop_pair(node, graph)
    return sites, misses


def _choice(node: ir.Node, rank: int) -> ir.Value | None:
    """The ids of experts by which a node gathers from a constant of that rank."""
    if node.op_type == "Gather":
        plain = node.attributes.get_int("axis", 0) == 0
    else:
        plain = node.op_type == "GatherND" and node.attributes.get_int("batch_dims", 0) == 0
    data, value = (node.inputs[0], node.inputs[1]) if plain else (None, None)
    if data is None or data.const_value is None or len(data.const_value.shape) != rank:
        return None
    return None if value is None else _chosen(value)


def _chosen(value: ir.Value) -> ir.Value | None:
    """The ids of experts [.., k] behind a value; they may have been chosen one by one."""
    node = value.producer()
    if node is None:
        return None
    read = [each for each in node.inputs if each is not None]
    if node.op_type in _SHAPES:
        return _chosen(read[0])
    if node.op_type == "TopK":
        return value if value is node.outputs[1] else None
    if node.op_type == "ArgMax":
        return value
    last = len(dims_of(value.shape)) - 1
    along = node.op_type == "Concat" and node.attributes.get_int("axis", 0) in {-1, last}
    return value if along and all(_chosen(each) is not None for each in read) else None


def _product(gather: ir.Node, ids: ir.Value) -> _Gathered:
    matrices, gathered, swapped = gather.inputs[0], gather.outputs[0], False
    assert matrices is not None
    node = _only_reader(gathered)
    if node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == [0, 2, 1]:
        gathered, swapped = node.outputs[0], True
        node = _only_reader(gathered)
    if node.op_type != "MatMul":
        raise NotExpertsError(f"gathered matrices are read by {node.op_type}, wanted MatMul")
    place = node.inputs.index(gathered)
    axis = 2 if place == 0 else 1  # a column behind the matrix, or a row before it
    other, product = node.inputs[1 - place], _only_reader(node.outputs[0])
    maker = None if other is None else other.producer()
    rows = maker.inputs[0] if maker is not None and _at(maker, "Unsqueeze", axis) else None
    if rows is None or not _at(product, "Squeeze", axis):
        raise NotExpertsError("its products are not of one row and one matrix for every slot")
    output = product.outputs[0]
    bias = _bias(output, ids)
    if bias is not None:
        output, constant = bias
        return _Gathered(matrices, (place == 1) != swapped, ids, rows, constant, output, node)
    return _Gathered(matrices, (place == 1) != swapped, ids, rows, None, output, node)


def _only_reader(value: ir.Value) -> ir.Node:
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value.is_graph_output():
        raise NotExpertsError(f"{value.name} is read {len(readers)} times, wanted once")
    return readers[0]


def _at(node: ir.Node, op_type: str, axis: int) -> bool:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if axes is None else constant_of(axes)
    return node.op_type == op_type and tensor is not None and tensor.numpy().tolist() in (
        [axis], [axis - 3],
    )  # fmt: skip


def _bias(output: ir.Value, ids: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The sum with gathered rows of a constant [E, U], and the constant."""
    readers = [use.node for use in output.uses()]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    for value in readers[0].inputs:
        node = None if value is None else value.producer()
        if node is not None and _choice(node, 2) is ids and node.inputs[0] is not None:
            return readers[0].outputs[0], node.inputs[0]
    return None


def _replace(
    found: _Gathered,
    flat: dict[ir.Value, ir.Value],
    model: ir.Model,
    order: Mapping[ir.Node, int],
) -> str:
    graph, name = model.graph, slots_name(found.node)
    added = Additions(graph, name)
    ids, top_k = _matrix_of(found.ids, flat, added)
    x, spread = _tokens(found.rows, top_k, order)
    weight = found.matrices
    kind = weight.dtype
    assert kind is not None
    count, *sides = dims_of(weight.shape)
    if found.transposed:
        sides.reverse()
        dims = [count, *sides]
        weight = added.node("matrices", "Transpose", [weight], kind, dims, perm=(0, 2, 1))
    inputs = [x, ids, weight] if found.bias is None else [x, ids, weight, found.bias]
    output = ir.Value(name=name, shape=ir.Shape([None, sides[0]]), type=found.output.type)
    op_type = "ExpertLinear" if found.bias is None else "ExpertLinearBias"
    node = operator(op_type, inputs, [output], model, name, spread=spread)
    node.metadata_props.update(found.node.metadata_props)
    graph.append(node)
    take_place(found.output, output, graph)
    output.shape = ir.Shape([None, sides[0]])
    return name


def _matrix_of(
    ids: ir.Value, flat: dict[ir.Value, ir.Value], added: Additions
) -> tuple[ir.Value, int]:
    """Ids as [T, k], and k."""
    node = ids.producer()
    assert node is not None
    counted = node.inputs[1] if node.op_type == "TopK" else None
    wanted = None if counted is None else constant_of(counted)
    last = dims_of(ids.shape)[-1] if ids.shape else None
    if wanted is not None:
        last = int(wanted.numpy().ravel()[0])
    if not isinstance(last, int) or ids.shape is None:
        raise NotExpertsError("how many experts a token goes to is unknown")
    if len(ids.shape) == 2:
        ids.shape = ir.Shape([dims_of(ids.shape)[0], last])
        return ids, last
    if ids not in flat:
        shape = added.constant("ids_shape", np.array([-1, last], np.int64))
        flat[ids] = added.node("ids", "Reshape", [ids, shape], ir.DataType.INT64, [None, last])
    return flat[ids], last


def _tokens(rows: ir.Value, top_k: int, order: Mapping[ir.Node, int]) -> tuple[ir.Value, int]:
    """The tokens whose rows are repeated k times, and k; else the rows themselves and 1."""
    for value in _above(rows):
        dims = dims_of(value.shape)
        if value is rows or len(dims) != 2 or not isinstance(dims[1], int) or value.dtype is None:
            continue
        cut = cut_above([rows], [value], order)
        others = [source for source in cut.sources if source is not value]
        leading = leading_of([value, *cut.shapes])
        x = np.arange(np.prod((*leading(1), dims[1]))).reshape(-1, dims[1])
        feeds = {value: x.astype(value.dtype.numpy())}
        for source in (*others, *cut.shapes):
            own = dims_of(source.shape)
            last = [dim for dim in own[-1:] if isinstance(dim, int)]
            if source.dtype is not None:
                shape = (*leading(len(own) - len(last)), *last)
                feeds.setdefault(source, np.zeros(shape, source.dtype.numpy()))
        try:
            (found,) = cut.run([rows], feeds)
        except NotExpertsError:
            continue  # what cannot be run alone is no repetition of rows; another value may be
        if np.array_equal(found, np.repeat(feeds[value], top_k, axis=0)):
            return value, top_k
    return rows, 1


def _above(value: ir.Value | None) -> Iterator[ir.Value]:
    while value is not None and value.const_value is None:
        yield value
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _MOVES else None


def _drop_pair(node: ir.Node, graph: ir.Graph) -> None:
    """``Squeeze`` right behind the ``Unsqueeze`` of the same axis."""
    read = node.inputs[0] if node.op_type == "Squeeze" and len(node.inputs) > 1 else None
    before = None if read is None else read.producer()
    if before is None or before.op_type != "Unsqueeze":
        return
    axes = [None if n.inputs[1] is None else constant_of(n.inputs[1]) for n in (node, before)]
    if axes[0] is None or axes[1] is None or not np.array_equal(axes[0].numpy(), axes[1].numpy()):
        return
    source = before.inputs[0]
    if source is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(source)
        graph.remove(node, safe=True)
        if not before.outputs[0].uses() and not before.outputs[0].is_graph_output():
            graph.remove(before, safe=True)
