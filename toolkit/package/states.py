"""Caches that the server keeps between the requests of a sequence: Triton's implicit state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.artifacts import Shapes, TensorSpec
from toolkit.feeds import caches_of
from toolkit.package.interface import Interface, ServedTensor

__all__ = ["State", "StateRefusal", "states_of"]


@dataclass(frozen=True)
class State:
    """A cache as ``config.pbtxt`` has it: an output that is the next request's input."""

    input: ServedTensor
    output: str

    @property
    def first(self) -> tuple[int, ...]:
        """Its shape when a sequence begins: Triton makes every open size 1."""
        return tuple(1 if dim < 0 else dim for dim in self.input.dims)


@dataclass(frozen=True)
class StateRefusal:
    """Why the server cannot keep the caches; empty where there are none."""

    reason: str


def states_of(
    interface: Interface, inputs: Sequence[TensorSpec], shapes: Shapes
) -> tuple[State, ...] | StateRefusal:
    """The caches that Triton's sequence batcher can keep.

    Triton begins a sequence with 1 in place of every open size, so there is one position in the
    caches that no token made. A mask has to hide it, and the range of the past has to allow it.
    """
    names = [tensor.name for tensor in interface.outputs]
    found = caches_of(inputs, names)
    if found is None:
        return StateRefusal("")
    if found.cross:
        return StateRefusal("it has caches of an encoder, which no request of its own gives")
    if found.mask is None:
        return StateRefusal(
            "it takes no mask, and Triton begins a sequence with one position of zeros"
        )
    specs = {spec.name: spec for spec in inputs}
    given = {tensor.name: tensor for tensor in interface.outputs}
    states = []
    for tensor in interface.inputs:
        if tensor.name not in found.past:
            continue
        present = given[found.present(tensor.name)]
        if (present.dtype, present.dims) != (tensor.dtype, tensor.dims):
            return StateRefusal(f"{present.name!r} has not the type and shape of {tensor.name!r}")
        own = [dim for dim in specs[tensor.name].shape[1:] if isinstance(dim, str)]
        if len(own) != 1 or own[0] not in shapes or not _allows_one(own[0], shapes):
            return StateRefusal(
                f"{tensor.name!r} cannot have one position, with which Triton begins a sequence"
            )
        states.append(State(tensor, present.name))
    return tuple(states)


def _allows_one(dim: str, shapes: Shapes) -> bool:
    return shapes[dim].min <= 1 <= shapes[dim].max
