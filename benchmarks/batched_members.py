"""Would members of one architecture run faster stacked into batched MatMuls? See docs/ensembles.md.

Figures without a bound: they decide whether there is a pass that batches, and so far there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.measure import interleaved, ratio
from benchmarks.rows import Row

__all__ = ["run"]

SUM = "z"


@dataclass
class Members:
    """The graph of ``count`` members over the input ``x``, which ends in their sum.

    Attributes:
        count: How many.
        stacked: One node for all, with a leading axis of members; otherwise a node for each.
    """

    count: int
    stacked: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shared: set[str] = field(default_factory=lambda: {"x"})

    def weight(self, name: str, *shape: int) -> str:
        """Weights of each member, seeded by the name; a stacked one broadcasts over axes of 1."""
        rng = np.random.default_rng(list(name.encode()))
        arrays = rng.normal(size=(self.count, *shape)).astype(np.float32) / 10
        if self.stacked:
            self.constants[name] = arrays
        else:
            self.constants.update({f"{name}_{m}": array for m, array in enumerate(arrays)})
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """One that all members share."""
        self.constants[name] = array
        self.shared.add(name)
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node for each member, or one for all; returns what its output is called."""
        output = f"value{len(self.nodes)}"
        if self.stacked:
            self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
            return output
        for member in range(self.count):
            own = [name if name in self.shared else f"{name}_{member}" for name in inputs]
            self.nodes.append(helper.make_node(op, own, [f"{output}_{member}"], **attributes))
        return output

    def model(self, output: str, shape: Sequence[int]) -> bytes:
        """The graph."""
        if self.stacked:
            first = self.constant("first", np.array([0]))
            last = helper.make_node("ReduceSum", [output, first], [SUM], keepdims=0)
        else:
            last = helper.make_node("Sum", [f"{output}_{m}" for m in range(self.count)], [SUM])
        graph = helper.make_graph(
            [*self.nodes, last],
            "members",
            [helper.make_tensor_value_info("x", 1, shape)],
            [helper.make_tensor_value_info(SUM, 1, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def mlp(members: Members, width: int, depth: int, batch: int) -> tuple[bytes, np.ndarray]:
    """``depth`` hidden layers over 64 features, 10 classes."""
    hidden, before, lead = "x", 64, (1,) if members.stacked else ()
    for layer in range(depth):
        product = members.add("MatMul", hidden, members.weight(f"w{layer}", before, width))
        shifted = members.add("Add", product, members.weight(f"b{layer}", *lead, width))
        hidden, before = members.add("Relu", shifted), width
    output = members.add("MatMul", hidden, members.weight("head", before, 10))
    return _fed(members, output, (batch, 64))


def encoder(members: Members, width: int, batch: int, length: int) -> tuple[bytes, np.ndarray]:
    """Two layers of attention with 4 heads and a feed-forward layer, without norms."""
    lead, front = ((1,), [-1]) if members.stacked else ((), [])
    shift = len(front)
    split = members.constant("split", np.array([*front, batch, length, 4, width // 4]))
    join = members.constant("join", np.array([*front, batch, length, width]))
    scale = members.constant("scale", np.array((width // 4) ** -0.5, np.float32))

    def order(*axes: int) -> list[int]:
        return [*range(shift), *(axis + shift for axis in axes)]

    def linear(value: str, name: str, inputs: int, outputs: int) -> str:
        return members.add("MatMul", value, members.weight(name, *lead, inputs, outputs))

    hidden = "x"
    for layer in range(2):
        heads = {}
        for name, axes in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            apart = members.add("Reshape", linear(hidden, f"{name}{layer}", width, width), split)
            heads[name] = members.add("Transpose", apart, perm=order(*axes))
        scores = members.add("Mul", members.add("MatMul", heads["q"], heads["k"]), scale)
        mixed = members.add("MatMul", members.add("Softmax", scores, axis=-1), heads["v"])
        joined = members.add("Transpose", mixed, perm=order(0, 2, 1, 3))
        joined = members.add("Reshape", joined, join)
        hidden = members.add("Add", hidden, linear(joined, f"o{layer}", width, width))
        inner = members.add("Relu", linear(hidden, f"u{layer}", width, 4 * width))
        hidden = members.add("Add", hidden, linear(inner, f"d{layer}", 4 * width, width))
    return _fed(members, hidden, (batch, length, width))


def _fed(members: Members, output: str, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return members.model(output, shape), x


CASES: dict[str, Callable[[Members], tuple[bytes, np.ndarray]]] = {
    "MLP 64-32-32-10, batch 1": partial(mlp, width=32, depth=2, batch=1),
    "MLP 64-32-32-10, batch 64": partial(mlp, width=32, depth=2, batch=64),
    "MLP 64-256-256-10, batch 1": partial(mlp, width=256, depth=2, batch=1),
    "MLP 64-256-256-10, batch 64": partial(mlp, width=256, depth=2, batch=64),
    "MLP 64-1024-1024-1024-10, batch 1": partial(mlp, width=1024, depth=3, batch=1),
    "encoder of width 64, 1 x 16": partial(encoder, width=64, batch=1, length=16),
    "encoder of width 64, 4 x 64": partial(encoder, width=64, batch=4, length=64),
    "encoder of width 256, 1 x 16": partial(encoder, width=256, batch=1, length=16),
    "encoder of width 256, 4 x 64": partial(encoder, width=256, batch=4, length=64),
}


def run(*, quick: bool) -> list[Row]:
    """Time 4 and 16 members one after the other in one graph over all of them stacked."""
    rows = []
    for name, build in CASES.items():
        for count in (4,) if quick else (4, 16):
            for threads in (1, 2):
                found = ratio(*measure(build, count, threads, repeats=5 if quick else 21))
                title = f"{name}: {count} members apart / stacked, {threads} threads"
                rows.append(Row.of(title, found))
    return rows


def measure(
    build: Callable[[Members], tuple[bytes, np.ndarray]], count: int, threads: int, repeats: int
) -> tuple[list[float], list[float]]:
    """Seconds of the members apart and stacked, some milliseconds a timing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    calls: dict[str, Callable[[], object]] = {}
    for stacked in (False, True):
        model, x = build(Members(count, stacked))
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        calls[str(stacked)] = partial(session.run, None, {"x": x})
    once = interleaved(calls, 3)["False"]
    runs = max(1, int(0.01 / min(once)))

    def many(call: Callable[[], object]) -> None:
        for _ in range(runs):
            call()

    times = interleaved({name: partial(many, call) for name, call in calls.items()}, repeats)
    return times["False"], times["True"]
