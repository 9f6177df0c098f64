"""At few tokens a down projection multiplies only the rows of neurons that say something."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphs.branching import Additions, choice, has_subgraph
from graphs.dims import dims_of
from graphs.errors import GraphError
from graphs.passes.base import PassReport
from graphs.silent.layers import Down, downs_of

__all__ = ["SkipSilentNeurons"]

_STEM = "/silent"
_INT64, _BOOL = ir.DataType.INT64, ir.DataType.BOOL


class _ByNeuron(ir.LazyTensor):
    """A matrix [H, F] as [F, H], transposed when it is written."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        self._source = tensor
        width, neurons = tensor.shape.numpy()
        super().__init__(self._turn, tensor.dtype, ir.Shape([neurons, width]), name=tensor.name)

    def _turn(self) -> ir.TensorProtocol:
        array = np.ascontiguousarray(self._source.numpy().T)
        return ir.Tensor(array, dtype=self.dtype, name=self.name)


@dataclass(frozen=True)
class SkipSilentNeurons:
    """Puts a down projection after a ReLU behind an ``If`` on how many neurons are active.

        n = how many columns f of a [T, F] are not zero for all T tokens
        y = a[:, active] @ W[active, :] + b   if n <= limits[T - 1] * F
            a @ W + b                         otherwise, and where T > len(limits)

    Exact for any activation: what is left out is zero times a finite weight. Sums run over fewer
    terms, so the last bits may differ from those of the whole product. With more tokens than
    ``limits`` has entries nothing is counted, and the whole product runs.

    The activation may be ReLU, its square or any positive power, ReLU times a gate's other half,
    or a clip at zero. Weights are never there twice: a matrix that lies by output, [H, F], is
    turned, so that the row of a neuron lies in one piece, and one that others read so is left
    alone and reported. The up projection is computed whole: which of its neurons will be silent is
    known only afterwards, and guessing it takes a trained predictor.

    Attributes:
        limits: The largest share of active neurons at which rows are gathered, for 1, 2, ..
            tokens; from measurements of 1,024 x 4,096 in ONNX Runtime on a CPU.
        only: Shell patterns of the names of nodes.
    """

    name: ClassVar[str] = "skip_silent_neurons"

    limits: tuple[float, ...] = (0.15,) * 8
    only: tuple[str, ...] = ("*",)

    def requires(self, model: ir.Model) -> None:
        """Limits are shares."""
        del model
        if not self.limits or not all(0 <= limit <= 1 for limit in self.limits):
            raise GraphError(f"{self.name}: limits are {self.limits}, wanted shares from 0 to 1")

    def apply(self, model: ir.Model) -> PassReport:
        """Sites are the down projections that gather now."""
        downs, misses = downs_of(model.graph)
        chosen = [d for d in downs if any(fnmatchcase(d.name, p) for p in self.only)]
        for down in chosen:
            _Site(down, model.graph).rewrite(self.limits)
        return PassReport(self.name, tuple(d.name for d in chosen), tuple(misses))

    def ensures(self, model: ir.Model) -> None:
        """Branches of ours hold no control flow, and rows are gathered from a constant."""
        for node in model.graph:
            if node.op_type != "If" or not str(node.name).endswith(f"{_STEM}/if"):
                continue
            branch = node.attributes["then_branch"].as_graph()
            gathers = [n for n in branch if n.op_type == "Gather"]
            tables = [n.inputs[0] for n in gathers if n.inputs[0] is not None]
            if any(map(has_subgraph, branch)) or not any(v.const_value is not None for v in tables):
                raise GraphError(f"{self.name}: {node.name!r} gathers no rows of a constant")


class _Site:
    """One down projection on its way behind an ``If``."""

    def __init__(self, down: Down, graph: ir.Graph) -> None:
        self.down, self.graph = down, graph
        # Said once: turning the weights changes what their shape says.
        self.neurons, self.width = down.neurons, down.linear.width
        self.stem = f"{down.name}{_STEM}"
        self.add = Additions(graph, self.stem)
        self.kind = down.linear.weight.dtype or ir.DataType.FLOAT

    def rewrite(self, limits: tuple[float, ...]) -> None:
        node, old = self.down.node, self.down.node.outputs[0]
        weight = self._by_neuron()
        flat = self._flat()
        few, active = self._condition(flat, limits)
        name = str(old.name)
        result = ir.Value(name=name, shape=old.shape, type=old.type)
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        old.name = f"{name}/whole"
        self.graph.remove(node)
        gathered = self._gathered(flat, active, weight, old)
        kept = ir.Graph([], [old], nodes=[node], name=f"{self.stem}/else")
        made = choice(few, gathered, kept, [result], f"{self.stem}/if")
        made.metadata_props.update(node.metadata_props)
        self.graph.append(made)

    def _by_neuron(self) -> ir.Value:
        """The weights as [F, H]; the node reads them so too."""
        linear, node = self.down.linear, self.down.node
        weight = linear.weight
        if not linear.transposed:
            tensor = weight.const_value
            assert tensor is not None
            weight.const_value = _ByNeuron(tensor)
            weight.shape = weight.const_value.shape
        between = node.inputs[1]
        if node.op_type == "Gemm":
            # Whatever transpositions there were, they are in the tensor now.
            node.attributes["transB"] = ir.AttrInt64("transB", 0)
        if between is not weight:
            node.replace_input_with(1, weight)
            maker = None if between is None else between.producer()
            if maker is not None and between is not None and not between.uses():
                self.graph.remove(maker, safe=True)
        return weight

    def _flat(self) -> ir.Value:
        """The activation [T, F]."""
        x, neurons = self.down.linear.x, self.neurons
        if len(dims_of(x.shape)) == 2:
            return x
        rows = self.add.constant("rows", np.array([-1, neurons], np.int64))
        return self.add.node("flat", "Reshape", [x, rows], self.kind, [None, neurons])

    def _condition(self, flat: ir.Value, limits: tuple[float, ...]) -> tuple[ir.Value, ir.Value]:
        """Whether few are active, and which [1, n].

        With too many tokens no neuron is looked at, so that a long prompt pays next to nothing.
        """
        add, most = self.add, len(limits)
        tokens = add.node("tokens", "Shape", [flat], _INT64, [1], start=0, end=1)
        bound = add.constant("bound", np.array([most], np.int64))
        short = add.node("short", "LessOrEqual", [tokens, bound], _BOOL, [1])
        outputs = [
            ir.Value(name=f"{self.stem}/few", shape=ir.Shape([1]), type=ir.TensorType(_BOOL)),
            ir.Value(name=f"{self.stem}/at", shape=ir.Shape([1, None]), type=ir.TensorType(_INT64)),
        ]
        counted = self._counted(flat, tokens, limits)
        self.graph.append(choice(short, counted, self._uncounted(), outputs, f"{self.stem}/looked"))
        return outputs[0], outputs[1]

    def _counted(self, flat: ir.Value, tokens: ir.Value, limits: tuple[float, ...]) -> ir.Graph:
        """The branch that looks which neurons are active."""
        table = [-1, *(int(limit * self.neurons) for limit in limits)]  # none, of no tokens
        allowed = self.add.constant("allowed", np.array(table, np.int64))
        first = self.add.constant("first", np.array([0], np.int64))
        branch = ir.Graph([], [], nodes=[], name=f"{self.stem}/look")
        add = Additions(branch, f"{self.stem}/look")
        limit = add.node("limit", "Gather", [allowed, tokens], _INT64, [1], axis=0)
        mass = add.node("mass", "ReduceL1", [flat, first], self.kind, [self.neurons], keepdims=0)
        # NaN is not 0, so it counts as active and reaches the output.
        alive = add.node("alive", "Cast", [mass], _BOOL, [self.neurons], to=int(_BOOL))
        # Listing them takes less time than adding up who they are, which is split over threads.
        at = add.node("at", "NonZero", [alive], _INT64, [1, None])
        count = add.node("count", "Shape", [at], _INT64, [1], start=1, end=2)
        few = add.node("few", "LessOrEqual", [count, limit], _BOOL, [1])
        branch.outputs.extend([few, at])
        return branch

    def _uncounted(self) -> ir.Graph:
        """The branch that says that they are many."""
        branch = ir.Graph([], [], nodes=[], name=f"{self.stem}/pass")
        add = Additions(branch, f"{self.stem}/pass")
        no, none = ir.tensor(np.array([False])), ir.tensor(np.zeros((1, 0), np.int64))
        few = add.node("few", "Constant", [], _BOOL, [1], value=no)
        at = add.node("at", "Constant", [], _INT64, [1, None], value=none)
        branch.outputs.extend([few, at])
        return branch

    def _gathered(
        self, flat: ir.Value, active: ir.Value, weight: ir.Value, whole: ir.Value
    ) -> ir.Graph:
        """The branch that multiplies active rows alone."""
        linear, width = self.down.linear, self.width
        added = Additions(self.graph, self.stem)
        branch = ir.Graph([], [], nodes=[], name=f"{self.stem}/then")
        add = Additions(branch, self.stem)
        flat_ids = added.constant("flat_ids", np.array([-1], np.int64))
        ids = add.node("ids", "Reshape", [active, flat_ids], _INT64, [None])
        said = add.node("said", "Gather", [flat, ids], self.kind, [None, None], axis=1)
        rows = add.node("active_rows", "Gather", [weight, ids], self.kind, [None, width], axis=0)
        last = add.node("product", "MatMul", [said, rows], self.kind, [None, width])
        bias = linear.bias if self.down.node.op_type == "Gemm" else None
        if bias is not None:
            last = add.node("biased", "Add", [last, bias], self.kind, [None, width])
        x = linear.x
        if flat is not x:
            rank = len(dims_of(x.shape))
            side = added.constant("width", np.array([width], np.int64))
            lead = add.node("lead", "Shape", [x], _INT64, [rank - 1], start=0, end=rank - 1)
            shape = add.node("shape", "Concat", [lead, side], _INT64, [rank], axis=0)
            last = add.node("shaped", "Reshape", [last, shape], self.kind, dims_of(whole.shape))
        last.shape = whole.shape
        branch.outputs.append(last)
        return branch
