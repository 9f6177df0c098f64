"""Let a member read and speak the vocabulary of the ensemble: two tables and two Gathers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.dims import dims_of
from graphs.errors import GraphError
from graphs.members import Member
from graphs.tree import Translation

__all__ = ["translate"]

_WHERE = "vocabulary/"


def translate(member: Member, translation: Translation) -> None:
    """Put the tables between the member and its input of ids and its output of logits.

    ``own ids = reads[ids]``; ``logits = own logits[..., speaks]``, -inf where ``speaks`` is -1.
    The values are called ``vocabulary/ids`` and ``vocabulary/logits`` below the member's prefix.

    Raises:
        GraphError: If the member has no such input or output, or the tables name ids past its
            last axis.
    """
    _read(member, translation)
    _speak(member, translation)


def _read(member: Member, translation: Translation) -> None:
    graph = member.model.graph
    names = list(member.inputs)
    if translation.ids not in names:
        raise GraphError(
            f"member {member.name!r} has no input {translation.ids!r} to translate",
            hint="its inputs are " + ", ".join(names),
        )
    shared = graph.inputs[names.index(translation.ids)]
    assert shared.dtype is not None
    table = _constant(member, "reads", np.array(translation.reads, shared.dtype.numpy()))
    own = ir.Value(name=f"{member.prefix}{_WHERE}ids", shape=shared.shape, type=shared.type)
    shared.replace_all_uses_with(own)
    node = ir.node("Gather", [table, shared], outputs=[own], name=f"{member.prefix}{_WHERE}read")
    graph.insert_before(graph[0], node)


def _speak(member: Member, translation: Translation) -> None:
    if translation.logits not in member.outputs:
        raise GraphError(
            f"member {member.name!r} has no output {translation.logits!r} to translate",
            hint="its outputs are " + ", ".join(member.outputs),
        )
    own = member.outputs[translation.logits]
    speaks = np.array(translation.speaks, np.int64)
    assert own.shape is not None
    assert own.dtype is not None
    size = own.shape[-1]
    if isinstance(size, int) and speaks.max() >= size:
        raise GraphError(
            f"member {member.name!r} is to speak with its id {speaks.max()}, but its output "
            f"{translation.logits!r} has {size}"
        )
    shape = ir.Shape([*dims_of(own.shape)[:-1], len(speaks)])
    places = _constant(member, "speaks", np.maximum(speaks, 0))
    node = _append(member, "spoken", "Gather", [own, places], shape, own.type, axis=-1)
    if (speaks < 0).any():
        known = _constant(member, "known", speaks >= 0)
        nothing = _constant(member, "nothing", np.array(-np.inf).astype(own.dtype.numpy()))
        node = _append(member, "silent", "Where", [known, node, nothing], shape, own.type)
    node.name = f"{member.prefix}{_WHERE}logits"
    member.model.graph.outputs[list(member.outputs).index(translation.logits)] = node
    member.outputs[translation.logits] = node


def _append(  # noqa: PLR0913, PLR0917  (a node is as much)
    member: Member,
    name: str,
    op_type: str,
    inputs: list[ir.Value],
    shape: ir.Shape,
    kind: ir.TypeProtocol | None,
    **attributes: int,
) -> ir.Value:
    name = f"{member.prefix}{_WHERE}{name}"
    output = ir.Value(name=name, shape=shape, type=kind)
    member.model.graph.append(ir.node(op_type, inputs, attributes, outputs=[output], name=name))
    return output


def _constant(member: Member, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    name = f"{member.prefix}{_WHERE}{name}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    member.model.graph.initializers[name] = value
    return value
