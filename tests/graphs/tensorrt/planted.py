"""Graphs that break one rule each, and graphs that keep them all, as ONNX text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

__all__ = ["KEPT", "PLANTED", "Planted", "write_planted"]

Weights = dict[str, np.ndarray]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def whole(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


@dataclass(frozen=True)
class Planted:
    """A graph, the rule it breaks and at which node; without a rule it keeps all."""

    text: str
    rule: str = ""
    node: str = ""
    weights: Weights = field(default_factory=dict)
    opset: int = 20
    domains: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the test's name and the file's."""
        return self.rule or self.node


def write_planted(planted: Planted, path: Path) -> Path:
    opsets = ", ".join([f'"" : {planted.opset}', *(f'"{name}" : 1' for name in planted.domains)])
    model = parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>\n{planted.text}")
    for name, array in planted.weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return path


ROWS = "g (float[batch,4] x) => (float[batch,4] y) "
CHOICE = "g (float[batch,4] x, bool c) => (float[batch,4] y) "
IMAGE = "g (float[batch,3,8,8] x) => (float[batch,3,a,b] y) "
FOO = '\n<domain: "our", opset_import: ["" : 20]>\nFoo (a) => (b) { b = Neg (a) }'


def choice(then: str, other: str, out: str = "float[batch,4]", first: str = "") -> str:
    """A body with an If whose branches give ``a`` and ``b``."""
    return (
        f"{{ {first} [choose] y = If (c) <then_branch = t () => ({out} a) {{ {then} }},"
        f" else_branch = e () => ({out} b) {{ {other} }}> }}"
    )


def loop(body: str, out: str = "float[batch,4]", inputs: str = "n, go, x") -> str:
    return (
        f"{{ [turn] y = Loop ({inputs}) <body = b (int64 i, bool ci, float[batch,4] v) =>"
        f" (bool co, {out} w) {{ {body} }}> }}"
    )


GO = {"n": whole(3), "go": np.array(True)}

_INTERFACE = [
    Planted("g (int16[batch,4] x) => (float[batch,4] y) { y = Cast <to = 1> (x) }",
            "input-type", "x"),
    Planted(ROWS + "{ v = Cast <to = 1> (w) y = Add (x, v) }", "weight-type", "w",
            {"w": ones(4, dtype=np.uint16)}),
    Planted(ROWS + "{ [wide] z = Reshape (x, s) t = Relu (z) y = Reshape (t, u) }", "rank", "wide",
            {"s": ints(0, 1, 1, 1, 1, 1, 1, 1, 4), "u": ints(-1, 4)}),
    Planted("g (float[?,4] x) => (float[?,4] y) { y = Relu (x) }", "dimension-unnamed", "x"),
    Planted("g (float[rows,4] x) => (float[rows,4] y) { y = Relu (x) }", "dimension-range", "x"),
    Planted("g (float[batch,4] x, int64[2] s) => (float[a,b] y) { [form] y = Reshape (x, s) }",
            "shape-input", "form"),
]  # fmt: skip

_FUNCTIONS = [
    Planted(ROWS + "{ y = our.Relu (x) }\n"
            '<domain: "our", opset_import: ["" : 20]>\nRelu (a) => (b) { b = Neg (a) }',
            "function-name", "Relu", domains=("our",)),
    Planted(ROWS + "{ [call] y = our.Two (x) }\n"
            '<domain: "our", opset_import: ["" : 20]>\nTwo (a, q) => (b) { b = Neg (a) }',
            "function-inputs", "call", domains=("our",)),
    Planted(ROWS + "{ y = our.Outer <al: float = 0.5> (x) }\n"
            '<domain: "our", opset_import: ["" : 20, "our" : 1]>\n'
            "Outer <al> (a) => (b) { [hand] b = our.Inner <al: float = @al> (a) }\n"
            '<domain: "our", opset_import: ["" : 20]>\n'
            "Inner <al> (a) => (b) { b = LeakyRelu <alpha: float = @al> (a) }",
            "function-attribute", "hand", domains=("our",)),
    Planted("g (float[1,batch,16] x, int32[1,batch,2] i, float[1,batch,2] s) => "
            "(float[1,batch,16] y) { [moe] y = our.TRT_MoE <activation_type = 1> "
            "(x, i, s, g, u, d) }\n"
            '<domain: "our", opset_import: ["" : 20]>\n'
            "TRT_MoE <activation_type> (a, b, c, d, e, f) => (h) { h = Neg (a) }",
            "native-moe", "moe",
            {"g": np.ones((4, 16, 32), np.float32), "u": np.ones((4, 16, 32), np.float32),
             "d": np.ones((4, 32, 16), np.float32)}, domains=("our",)),
    Planted(ROWS + "{ [theirs] y = other.Softmax (x) }", "operator-domain", "theirs",
            domains=("other",)),
]  # fmt: skip

_OPERATORS = [
    Planted(ROWS + "{ [coin] y = Bernoulli (x) }", "operator-unsupported", "coin"),
    Planted(ROWS + "{ [theirs] y = com.microsoft.FastGelu (x) }", "operator-unknown", "theirs",
            domains=("com.microsoft",)),
    Planted("g (int64[batch,4] x, int64[4,3] w) => (int64[batch,3] y) { [mul] y = MatMul (x, w) }",
            "operator-type", "mul"),
    Planted(ROWS + "{ [down] z = Cast <to = 2> (x) y = Cast <to = 1> (z) }",
            "uint8-inside", "down"),
    Planted("g (float[batch,4] x, float16[batch,4] z) => (float[batch,4] y) "
            "{ [sum] y = Add (x, z) }",
            "types-differ", "sum"),
    Planted("g (float[batch,4] x) => (uint32[batch,4] y) { [cast] y = Cast <to = 12> (x) }",
            "cast-type", "cast"),
    Planted("g (float[batch,4] x, int64[k,1] i, float[k,4] u) => (float[batch,4] y) "
            '{ [add] y = ScatterND <reduction = "add"> (x, i, u) }', "scatternd-reduction", "add"),
    Planted("g (float[batch,4] x, int64[k,4] i, float[k,4] u) => (float[batch,4] y) "
            '{ [add] y = ScatterElements <reduction = "add"> (x, i, u) }',
            "scatterelements-reduction", "add"),
    Planted("g (float[batch,5000] x) => (float[batch,3841] y) { [best] y, i = TopK (x, k) }",
            "topk-k", "best", {"k": ints(3841)}),
    Planted("g (float[batch,4] x, int64[1] a) => (float[p,q] y) { [sum] y = ReduceSum (x, a) }",
            "reduce-axes", "sum"),
    Planted("g (float[batch,4] x, int64[1] a) => (float[p,q,r] y) { [wide] y = Unsqueeze (x, a) }",
            "unsqueeze-axes", "wide"),
    Planted("g (float[batch,seq] x) => (float[batch,seq] y) { [eye] y = EyeLike (x) }",
            "eyelike-shape", "eye"),
    Planted("g (float[batch,seq] x) => (float[batch,seq] y) { [hard] y = Hardmax (x) }",
            "hardmax-size", "hard"),
    Planted("g (int64[batch] x) => (float[batch,k] y) "
            "{ s = Shape (x) [hot] y = OneHot (x, s, v) }",
            "onehot-depth", "hot", {"v": np.array([0, 1], np.float32)}),
    Planted(IMAGE + "{ [pool] y = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (x) }",
            "pool-dilations", "pool"),
    Planted("g (float[batch,3,8,8] x) => (float[batch,3,a,b] y, int64[batch,3,a,b] i) "
            "{ [pool] y, i = MaxPool <kernel_shape = [2,2]> (x) }", "pool-indices", "pool"),
    Planted("g (float[batch,4] x) => (float[batch,4] y, float[batch,1] m) "
            "{ [norm] y, m = LayerNormalization (x, s) }", "normalization-outputs", "norm",
            {"s": ones(4)}),
    Planted(ROWS + "{ [drop] y = Dropout (x, r, t) }", "training", "drop",
            {"r": np.float32(0.5), "t": np.array(True)}),
    Planted(IMAGE + '{ [size] y = Resize <mode = "linear", antialias = 1> (x, , s) }',
            "resize-mode", "size", {"s": np.array([1, 1, 2, 2], np.float32)}),
    Planted("g (float[seq,batch,4] x) => (float[a,b,p,q] y) "
            "{ [cell] y = LSTM <hidden_size = 3, input_forget = 1> (x, w, r) }",
            "lstm-forget", "cell", {"w": ones(1, 12, 4), "r": ones(1, 12, 3)}),
    Planted("g (float[seq,batch,4] x) => (float[a,b,p,q] y) { [cell] y = GRU <hidden_size = 3, "
            'direction = "bidirectional", activations = ["Sigmoid", "Tanh", "Sigmoid", "Relu"]> '
            "(x, w, r) }", "rnn-activations", "cell", {"w": ones(2, 9, 4), "r": ones(2, 9, 3)}),
    Planted('g (float[batch,4] x) => (float[batch,3] y) { [sum] y = Einsum <equation = "Bi,io->Bo">'
            " (x, w) }", "einsum-letters", "sum", {"w": ones(4, 3)}),
    Planted(ROWS + "{ [put] q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, o) }",
            "zero-point", "put", {"s": np.float32(0.1), "z": np.int8(3), "o": np.int8(0)}),
    Planted(ROWS + '{ [said] s = Constant <value_string = "a"> () y = Relu (x) }',
            "constant-kind", "said"),
    Planted("g (float[batch,4] x) => (double[2,2] y) "
            "{ [noise] y = RandomNormal <dtype = 11, shape = [2,2]> () }", "random-type", "noise"),
    Planted("g (float[batch,3,8,8] x) => (float[batch,3,a,b] y) "
            "{ [pool] y = LpPool <kernel_shape = [2,2], p = 3> (x) }", "norm-order", "pool"),
]  # fmt: skip

_TWO = (
    "{ [choose] y = If (c) <then_branch = t () => (float[batch,4] a, float[batch,4] a2)"
    " { a = Relu (x) a2 = Neg (x) }, else_branch = e () => (float[batch,4] b) { b = Neg (x) }> }"
)
_INNER = (
    "[inner] a = If (c) <then_branch = t2 () => (float[batch,4] p) { p = Relu (x) },"
    " else_branch = e2 () => (float[batch,4] q) { q = Neg (x) }>"
)
_COLUMNS = "g (float[batch,4] x, bool c) => (float[batch,k] y) "
_HEADS = "g (float[batch,2,4,8] x, bool c) => (float[batch,2,4,8] y) "

_CONTROL = [
    Planted("g (float[batch,4] x, bool[2] c) => (float[batch,4] y) "
            + choice("a = Relu (x)", "b = Neg (x)"), "if-condition", "choose"),
    Planted(CHOICE + _TWO, "if-outputs", "choose"),
    Planted(CHOICE + "{ [choose] y = If (c) <then_branch = t () => (float[batch,4] a) "
            "{ a = Relu (x) }, else_branch = e () => (float[batch,4] a) { a = Neg (x) }> }",
            "if-names", "choose"),
    Planted(CHOICE + "{ [choose] y = If (c) <then_branch = t () => (float[batch,4] a) "
            "{ a = Relu (x) }, else_branch = e () => (float16[batch,4] b) "
            "{ b = Cast <to = 10> (x) }> }", "if-type", "choose"),
    Planted("g (float[batch,4] x, bool c) => (float y) { [choose] y = If (c) <then_branch = t () =>"
            " (float[batch,4] a) { a = Relu (x) }, else_branch = e () => (float[batch] b) "
            "{ b = ReduceSum <keepdims = 0> (x, z) }> }", "if-rank", "choose", {"z": ints(1)}),
    Planted(_COLUMNS + "{ [choose] y = If (c) <then_branch = t () => (float[batch,4] a) "
            "{ a = Relu (x) }, else_branch = e () => (float[batch,8] b) "
            "{ b = Concat <axis = 1> (x, x) }> }", "if-shape", "choose"),
    Planted(CHOICE + choice(_INNER, "b = Neg (x)"), "if-nested", "inner"),
    Planted("g (float[batch,4] x, float[m,4] w, bool c) => (float[p,4] y) "
            + choice("[cut] a = Slice (x, zero, k, zero)", "b = Slice (x, zero, s, zero)",
                     "float[p,4]", "k = Shape <start = 0, end = 1> (w)"
                     " s = Shape <start = 0, end = 1> (x)"),
            "if-foreign-size", "cut", {"zero": ints(0)}),
    Planted(_HEADS + choice("[attend] a = Attention (x, x, x)", "b = Neg (x)",
                            "float[batch,2,4,8]"), "if-attention", "attend", opset=23),
    Planted("g (float[batch,1,4,4] x, bool c) => (float[batch,1,8,8] y) { t = If (c) <then_branch ="
            " t () => (float[batch,1,4,4] a) { a = Relu (x) }, else_branch = e () => "
            "(float[batch,1,4,4] b) { b = Neg (x) }> u = Transpose <perm = [0,1,3,2]> (t) "
            "[size] y = Resize (u, , s) }", "if-resize", "size",
            {"s": np.array([1, 1, 2, 2], np.float32)}),
    Planted(ROWS + loop("co = Identity (ci) w = Relu (v)", inputs="n, , x"),
            "loop-condition", "turn", GO),
    Planted("g (float[batch,4] x) => (float[batch,4] y, float[k,batch,4] z) { [turn] y, z = Loop "
            "(, go, x) <body = b (int64 i, bool ci, float[batch,4] v) => (bool co, "
            "float[batch,4] w, float[batch,4] s) { w = Add (v, one) "
            "m = ReduceMax <keepdims = 0> (w) co = Less (m, most) s = Neg (v) }> }",
            "loop-scan-output", "turn",
            {"go": np.array(True), "one": np.float32(1), "most": np.float32(9)}),
    Planted("g (float[batch,4] x) => (float16[batch,4] y) "
            + loop("co = Identity (ci) w = Cast <to = 10> (v)", "float16[batch,4]"),
            "loop-carried-type", "turn", GO),
    Planted("g (float[batch,4] x) => (float[k,4] y) "
            + loop("co = Identity (ci) w = Concat <axis = 0> (v, v)", "float[k,4]"),
            "loop-carried-shape", "turn", GO),
]  # fmt: skip

PLANTED = [*_INTERFACE, *_FUNCTIONS, *_OPERATORS, *_CONTROL]
"""One for every rule."""


def _kept() -> Iterator[Planted]:
    """What looks like a violation and is none."""
    shape = "k = Shape <start = 0, end = 1> (x)"
    yield Planted(CHOICE + choice("a = Relu (x)", "b = Identity (x)"), node="choice")
    yield Planted(
        "g (float[batch,4] x, bool[1] c) => (float[batch,4] y) "
        + choice("a = Relu (x)", "b = Neg (x)"), node="choice by a list of one",
    )  # fmt: skip
    yield Planted(
        CHOICE + choice("a = Slice (x, zero, k, zero)", "b = Neg (x)", first=shape),
        node="slice to its own size", weights={"zero": ints(0)},
    )  # fmt: skip
    yield Planted(
        "g (float[batch,4] x, float[m,4] w, bool c) => (float[p,4] y) "
        + choice("a = Relu (s)", "b = Neg (s)", "float[p,4]",
                 "k = Shape <start = 0, end = 1> (w) s = Slice (x, zero, k, zero)"),
        node="slice outside", weights={"zero": ints(0)},
    )  # fmt: skip
    yield Planted(
        "g (float[batch,4] x, float[m,4] w, bool c) => (float[p,4] y) "
        + choice("s = Concat <axis = 0> (x, w) a = Slice (s, zero, k, zero)", "b = Neg (w)",
                 "float[p,4]", "k = Shape <start = 0, end = 1> (w)"),
        node="slice of a longer one", weights={"zero": ints(0)},
    )  # fmt: skip
    yield Planted(ROWS + loop("co = Identity (ci) w = Relu (v)"), node="loop", weights=GO)
    yield Planted(
        "g (int64[batch] x) => (int64[k] y) { m = ReduceMax <keepdims = 0> (x) "
        "y = Range (zero, m, one) }",
        node="length from data", weights={"zero": whole(0), "one": whole(1)},
    )  # fmt: skip
    yield Planted("g (uint8[batch,4] x) => (float[batch,4] y) { y = Cast <to = 1> (x) }",
                  node="pixels")  # fmt: skip
    yield Planted(ROWS + "{ y = our.Foo (x) }" + FOO, node="function", domains=("our",))
    yield Planted("g (float[batch,5000] x) => (float[batch,3840] y) { y, i = TopK (x, k) }",
                  node="largest k", weights={"k": ints(3840)})  # fmt: skip
    yield Planted(ROWS + "{ [twin] z = Relu (x) [twin] y = Neg (z) }", node="one name twice")
    yield Planted(
        "g (float[batch,4] x, int64[k,1] i, float[k,4] u) => (float[batch,4] y) "
        '{ y = ScatterND <reduction = "none"> (x, i, u) }', node="scatter",
    )  # fmt: skip
    yield Planted(
        "g (float[batch,4] x, int64[batch,4] z) => (int64[batch,4] y) { y = Mod (z, z) }",
        node="whole remainder",
    )
    yield Planted(IMAGE + '{ y = Resize <mode = "cubic"> (x, , s) }', node="cubic",
                  weights={"s": np.array([1, 1, 2, 2], np.float32)})  # fmt: skip
    yield Planted(
        "g (float[batch,4] x) => (float[batch,3] y) { s = Shape (x) r = Size (s) a = Sub (r, one) "
        "z = CumSum (x, a) y = Slice (z, one_, most, one_) }", node="axis that folds",
        weights={"one": whole(1), "one_": ints(1), "most": ints(2**63 - 1)},
    )  # fmt: skip


KEPT = list(_kept())
