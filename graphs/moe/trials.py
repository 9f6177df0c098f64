"""Whether values are a sparse sum over experts: experts replaced by stand-ins, and the rest run.

A stand-in gives every expert a direction of its own, so what a graph makes of them says how much
of each expert every token got. That has to be one weight for each of k experts, which a ``TopK``
chose, and nothing for the others; which expert is which, and the value that holds the weights, are
found by what they are on random logits, on ties, and where all tokens go to one expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from graphs.dims import dims_of
from graphs.moe.alike import ExpertSet
from graphs.moe.cuts import Array, Cut, Leading, cut_above, leading_of
from graphs.moe.linears import NotExpertsError

__all__ = ["SparseSum", "sparse_sum"]

_TRIALS = 24
_LEAST = 3  # one of each kind
_MOVES = {
    "Expand", "Gather", "GatherND", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_TOLERANCE = {ir.DataType.FLOAT: 2e-5, ir.DataType.DOUBLE: 2e-5, ir.DataType.FLOAT16: 4e-3}
_HALF_TOLERANCE = 3e-2  # bfloat16


@dataclass(frozen=True)
class SparseSum:
    """``y[t] = sum over j of weights[t, j] * expert[ids[t, j]](x[t])``.

    Attributes:
        x: [.., D], the tokens.
        ids: [.., k], of a ``TopK``.
        weights: [.., k], or [.., E] of which ids take theirs.
        output: y, [.., U].
        order: Which of the experts, as they were given, each id is.
        top_k: k.
        ranks: How many axes ids, weights and output have.
        per_expert: Whether the weights are [.., E].
    """

    x: ir.Value
    ids: ir.Value
    weights: ir.Value
    output: ir.Value
    order: tuple[int, ...]
    top_k: int
    ranks: tuple[int, int, int]
    per_expert: bool


def sparse_sum(
    experts: ExpertSet, exits: Sequence[ir.Value], order: Mapping[ir.Node, int]
) -> SparseSum:
    """Find out whether one of ``exits`` is a sparse sum over experts.

    Args:
        experts: The experts.
        exits: What could be the sum, nearest first.
        order: The place of every node of the graph.

    Raises:
        NotExpertsError: If none is.
    """
    *others, last = _tokens(experts)
    for x in others:
        with suppress(NotExpertsError):
            return _Trial.of(experts, exits, x, order).result()
    return _Trial.of(experts, exits, last, order).result()


def _tokens(experts: ExpertSet) -> list[ir.Value]:
    """Values that rows of all experts could come from, matrices first."""
    width = experts.linears[0].sizes[-2 if experts.linears[0].transposed else -1]
    chains = [list(_chain(value)) for value in dict.fromkeys(experts.inputs)]
    common = [value for value in chains[0] if all(value in chain for chain in chains)]
    known = [value for value in common if dims_of(value.shape)[-1:] == (width,)]
    found = [value for rank in (2, 3) for value in known if len(dims_of(value.shape)) == rank]
    if not found:
        raise NotExpertsError("the tokens its experts read are not found")
    return found


def _chain(value: ir.Value | None) -> Iterator[ir.Value]:
    while value is not None and value.const_value is None:
        yield value
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _MOVES else None


@dataclass
class _Trial:
    experts: ExpertSet
    x: ir.Value
    cut: Cut
    logits: ir.Value
    exits: list[ir.Value]
    top_ks: list[ir.Value]
    candidates: list[ir.Value]
    leading: Leading
    directions: Array  # [E, U], orthonormal
    found: list[dict[ir.Value, Array]] = field(default_factory=list)
    shares: dict[ir.Value, list[Array]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        experts: ExpertSet,
        exits: Sequence[ir.Value],
        x: ir.Value,
        order: Mapping[ir.Node, int],
    ) -> _Trial:
        wide, count = experts.linears[-1].width, experts.count
        if wide < count:
            raise NotExpertsError(f"its {count} experts are told apart only in outputs as wide")
        cut, logits = _cut(experts, exits, x, order)
        made = {value for node in cut.nodes for value in node.outputs}
        behind = _behind(experts.outputs, cut)
        apart = [v for node in cut.nodes for v in node.outputs if v not in behind]
        random = np.random.default_rng(0)
        directions = np.linalg.qr(random.normal(size=(wide, count)))[0].T
        return cls(
            experts, x, cut, logits,
            [value for value in exits if value in made],
            [n.outputs[1] for n in cut.nodes if n.op_type == "TopK" and n.outputs[1] in apart],
            [v for v in apart if v.dtype is None or v.dtype.is_floating_point()],
            leading_of([x, logits, *cut.shapes]), directions,
        )  # fmt: skip

    def result(self) -> SparseSum:
        exact = self._run(0)
        output = self._output(exact)
        for seed in range(1, _TRIALS):
            self._run(seed)
            ids, order = self._choice(output)
            if order is not None and seed + 1 >= _LEAST:
                weights = self._weights(output, ids, order)
                shapes = [exact[value].shape for value in (ids, weights, output)]
                return SparseSum(
                    self.x, ids, weights, output, order, shapes[0][-1],
                    (len(shapes[0]), len(shapes[1]), len(shapes[2])),
                    per_expert=shapes[1][-1] != shapes[0][-1],
                )  # fmt: skip
        raise NotExpertsError("which of its experts has which id is not clear")

    def _run(self, seed: int) -> dict[ir.Value, Array]:
        """One trial: logits at random, with ties, or with all tokens after the same expert."""
        random = np.random.default_rng(seed)
        x = random.uniform(0.5, 1.5, (*self._lead(self.x), self._width(self.x)))
        x *= random.uniform(0.5, 2, x.shape[:-1])[..., None]
        logits = 2 * random.normal(size=(*self._lead(self.logits), self.experts.count))
        if seed % 3 == 1:
            logits = np.round(logits)
        elif seed % 3 == 2:
            logits[..., seed % self.experts.count] += 6
        drawn = {self.x: x, self.logits: logits}
        feeds = {value: array.astype(_numpy(value)) for value, array in drawn.items()}
        for value in self.cut.shapes:
            dims = dims_of(value.shape)
            last = [dim for dim in dims[-1:] if isinstance(dim, int)]
            shape = (*self.leading(len(dims) - len(last)), *last)
            feeds.setdefault(value, np.zeros(shape, _numpy(value)))
        scale = feeds[self.x].astype(np.float64).mean(-1).ravel()  # what a stand-in makes of x
        extra = self._stand_ins(feeds, scale)
        outputs = [*self.exits, *self.top_ks, *self.candidates]
        if self.experts.axis is not None and self.experts.inputs[0] is not self.x:
            outputs.append(self.experts.inputs[0])
        arrays = dict(zip(outputs, self.cut.run(outputs, feeds, extra), strict=True))
        self._read_in_order(arrays, feeds[self.x])
        self.found.append(arrays)
        for value in self.exits:
            self.shares.setdefault(value, []).append(self._shares(arrays[value], scale))
        return arrays

    def _stand_ins(self, feeds: dict[ir.Value, Array], scale: Array) -> list[onnx.NodeProto]:
        """``mean(x) * direction`` of each expert: nodes where rows are gathered, else an array."""
        axis = self.experts.axis
        if axis is not None:
            table = scale.reshape(-1, 1, 1) * self.directions
            shape = (*self.leading(self.experts.rank - 2), *self.directions.shape)
            output = self.experts.outputs[0]
            feeds[output] = np.moveaxis(table.reshape(shape), -2, axis).astype(_numpy(output))
            return []
        nodes: list[onnx.NodeProto] = []
        for place, (read, output) in enumerate(
            zip(self.experts.inputs, self.experts.outputs, strict=True)
        ):
            kind = _numpy(output)
            mean, row, axes = (f"{output.name}/stand_in/{part}" for part in ("mean", "row", "axes"))
            direction = numpy_helper.from_array(self.directions[place].astype(kind), row)
            last = numpy_helper.from_array(np.array([-1]), axes)
            nodes += [
                helper.make_node("Constant", [], [row], value=direction),
                helper.make_node("Constant", [], [axes], value=last),
                helper.make_node("ReduceMean", [str(read.name), axes], [mean], keepdims=1),
                helper.make_node("Mul", [mean, row], [str(output.name)]),
            ]
        return nodes

    def _read_in_order(self, arrays: Mapping[ir.Value, Array], x: Array) -> None:
        """Experts in one product have to read all tokens as they are."""
        read = arrays.get(self.experts.inputs[0]) if self.experts.axis is not None else None
        if read is None:
            return
        rows = read.reshape(-1, x.size)
        if read.size % x.size or not np.array_equal(rows, np.broadcast_to(x.ravel(), rows.shape)):
            raise NotExpertsError("its experts do not all read every token")

    def _shares(self, y: Array, scale: Array) -> Array:
        """How much of each expert, as given, is in each token, [T, E]; empty if ``y`` is no sum."""
        tokens, wide = len(scale), self.directions.shape[1]
        if y.shape[-1:] != (wide,) or y.shape[:-1] not in {(tokens,), self._lead(self.x)}:
            return np.zeros((0, 0))
        rows = y.reshape(tokens, wide).astype(np.float64)
        parts = rows @ self.directions.T
        rest = rows - parts @ self.directions
        if not np.isfinite(rows).all() or abs(rest).max() > self._tolerance * abs(rows).max():
            return np.zeros((0, 0))
        shares: Array = parts / scale[:, None]
        return shares

    def _output(self, arrays: Mapping[ir.Value, Array]) -> ir.Value:
        wide = self.directions.shape[1]
        for value in self.exits:
            if self.shares[value][0].size:
                return value
        if any(arrays[v].shape[-1:] == (wide,) for v in self.exits):
            raise NotExpertsError("what comes of its experts is more than a weighted sum of them")
        raise NotExpertsError("where its experts are summed is not found")

    def _choice(self, output: ir.Value) -> tuple[ir.Value, tuple[int, ...] | None]:
        """The ids that explain the shares, and which expert each is once that is clear."""
        shares = self.shares[output]
        if not all(share.size for share in shares):
            raise NotExpertsError("what comes of its experts is more than a weighted sum of them")
        got = np.concatenate([abs(s) > self._tolerance * abs(s).max() for s in shares])
        least = self.experts.count
        for value in self.top_ks:
            ids = [a[value] for a in self.found]
            if any(each.shape[:-1] != ids[0].shape[:-1] for each in ids):
                continue
            chosen = np.concatenate([each.reshape(-1, each.shape[-1]) for each in ids])
            if len(chosen) != len(got) or chosen.max() >= self.experts.count:
                continue
            hits = np.zeros(got.shape, bool)
            np.put_along_axis(hits, chosen, values=True, axis=1)
            # An id can be an expert's if no token got the expert without the id.
            possible = ~(got.T[:, :, None] & ~hits[None]).any(1)
            least = min(least, chosen.shape[1])
            if possible.any(1).all() and chosen.shape[1] < self.experts.count:
                return value, self._order(possible)
        if got.sum(1).max() > least:
            raise NotExpertsError(f"its routing matrix is not zero outside {least} experts")
        raise NotExpertsError("no TopK chooses the experts that tokens get")

    def _order(self, possible: Array) -> tuple[int, ...] | None:
        if (possible.sum(1) > 1).any():
            return None
        ids = possible.argmax(1)
        if sorted(ids) != list(range(len(ids))):
            return None
        if self.experts.axis is not None and list(ids) != list(range(len(ids))):
            raise NotExpertsError("its ids are not those of its weights")
        return tuple(int(place) for place in np.argsort(ids))

    def _weights(self, output: ir.Value, ids: ir.Value, order: Sequence[int]) -> ir.Value:
        """The last value that holds the share of each choice."""
        for value in reversed(self.candidates):
            if all(
                self._holds(arrays[value], arrays[ids], share[:, order])
                for arrays, share in zip(self.found, self.shares[output], strict=True)
            ):
                return value
        raise NotExpertsError("no value holds the weights of its choices")

    def _holds(self, array: Array, ids: Array, share: Array) -> bool:
        chosen = ids.reshape(-1, ids.shape[-1])
        wanted = np.take_along_axis(share, chosen, 1)
        if array.shape[:-1] != ids.shape[:-1] and array.shape[:-1] != (len(chosen),):
            return False
        if array.shape[-1] == share.shape[1]:
            array = np.take_along_axis(array.reshape(share.shape), chosen, 1)
        elif array.shape[-1] != chosen.shape[1]:
            return False
        bound = self._tolerance * abs(wanted).max()
        return bool((abs(array.reshape(wanted.shape).astype(np.float64) - wanted) <= bound).all())

    @property
    def _tolerance(self) -> float:
        kind = self.experts.outputs[0].dtype
        return _HALF_TOLERANCE if kind is None else _TOLERANCE.get(kind, _HALF_TOLERANCE)

    def _lead(self, value: ir.Value) -> tuple[int, ...]:
        return self.leading(len(dims_of(value.shape)) - 1)

    def _width(self, value: ir.Value) -> int:
        size = None if value.shape is None else value.shape[-1]
        assert isinstance(size, int)
        return size


def _cut(
    experts: ExpertSet, exits: Sequence[ir.Value], x: ir.Value, order: Mapping[ir.Node, int]
) -> tuple[Cut, ir.Value]:
    """The nodes between logits, tokens and experts and as many exits as need nothing else."""
    stops = {x, *experts.outputs}
    for count in range(len(exits), 0, -1):
        cut = cut_above([*exits[:count], *experts.inputs], stops, order)
        starts = [value for value in cut.sources if value not in stops]
        if len(starts) == 1 and starts[0].shape and starts[0].shape[-1] == experts.count:
            return cut, starts[0]
    if not exits:
        raise NotExpertsError("where its experts are summed is not found")
    read = ", ".join(str(value.name) for value in starts[:3]) or "constants alone"
    raise NotExpertsError(f"its routing starts from {read}, wanted logits [T, {experts.count}]")


def _behind(values: Sequence[ir.Value], cut: Cut) -> set[ir.Value]:
    """What depends on ``values``."""
    found = set(values)
    for node in cut.nodes:
        if any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _numpy(value: ir.Value) -> np.dtype[np.generic]:
    if value.dtype is None:
        raise NotExpertsError(f"the type of {value.name} is unknown")
    return value.dtype.numpy()
