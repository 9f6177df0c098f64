"""What joins the members of an ensemble, as a graph of its own that takes their outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from graphs import store
from graphs.description import TensorInfo
from graphs.errors import GraphError
from graphs.fusing import fuse
from graphs.tree import Ensemble, Gate, Leaf, parts_of

__all__ = ["write_combination"]

_OPSET = 20
_GIVEN = "given"
_DTYPES = {"float32": "FLOAT", "float64": "DOUBLE"}


def write_combination(ensemble: Ensemble, outputs: Mapping[str, TensorInfo], out: Path) -> None:
    """Write the graph that computes an ensemble's output from its members', and the gate's scores.

    It is what ``fuse`` joins members with, so it computes the same.

    Args:
        ensemble: The ensemble; of its members only the names are looked at.
        outputs: By the name of a member, or of the gate's model, the output that is combined, or
            the scores. The inputs of the graph are called like the members.
        out: The file to write.

    Raises:
        GraphError: If an output has no shape, or the outputs cannot be combined.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        gate = ensemble.gate
        leaves = {}
        for number, part in enumerate(parts_of(ensemble)):
            is_gate = gate is not None and part is gate.model
            name = gate.output if gate is not None and is_gate else ensemble.combination.output
            path = Path(folder) / f"{number}.onnx"
            _write_passing(outputs[part.name], name, path)
            leaves[part.name] = Leaf(part.name, path, {_GIVEN: part.name})
        members = tuple(leaves[member.name] for member in ensemble.members)
        changed: Gate | None = None
        if gate is not None:
            changed = replace(gate, model=leaves[gate.model.name])
        fuse(replace(ensemble, members=members, gate=changed, rename={}), out)


def _write_passing(tensor: TensorInfo, name: str, path: Path) -> None:
    """A graph whose output is its input."""
    if tensor.shape is None:
        raise GraphError(f"output {tensor.name!r} has no shape, so nothing can take it")
    kind = ir.TensorType(ir.DataType[_DTYPES.get(tensor.dtype, tensor.dtype.upper())])
    given = ir.Value(name=_GIVEN, shape=ir.Shape(tensor.shape), type=kind)
    passed = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=kind)
    node = ir.node("Identity", [given], outputs=[passed])
    graph = ir.Graph([given], [passed], nodes=[node], opset_imports={"": _OPSET}, name="passing")
    store.save(ir.Model(graph, ir_version=store.IR_VERSION), path)
