"""The rules: what is wanted of a graph, of which versions, and how that is known. Data alone.

Sources are those of ``graphs.tensorrt.operators``; besides them ``toolkit.engine`` is this project,
whose profiles give ranges to named dimensions and to nothing else, and ``#N`` is an issue of
NVIDIA/TensorRT. What was tried with TensorRT-RTX is tried again by a test, on graphs that keep a
rule and graphs that break it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphs.tensorrt.spans import ALL_RTX, ALL_TENSORRT, Limits, Span

__all__ = ["RULES", "Effect", "Rule"]

Effect = Literal["refused", "crash", "wrong values"]


@dataclass(frozen=True)
class Rule:
    """One demand.

    Attributes:
        name: What reports call it.
        wanted: The demand, to be read after "wanted".
        limits: Where it is made; None where each finding has limits of its own.
        hint: What to do about it.
        effect: What the builder does with a graph that breaks it.
    """

    name: str
    wanted: str
    limits: Limits | None
    hint: str = ""
    effect: Effect = "refused"


def _both(source: str) -> Limits:
    return Limits(ALL_TENSORRT, ALL_RTX, source)


def _rtx(source: str) -> Limits:
    return Limits(None, ALL_RTX, source)


_INTERFACE = (
    Rule("input-type", "a type that TensorRT stores", _both("importer, convertDtype; RTX 1.7.1"),
         "cast before the graph, or export with int64, int32 or a floating-point type"),
    Rule("weight-type", "a type that TensorRT stores",
         _both("importer, convertOnnxWeights; RTX 1.7.1"), "store it as int32, int64 or float32"),
    Rule("rank", "at most 8 dimensions", _both("importer, Dims::MAX_DIMS; RTX 1.7.1"),
         "merge dimensions that need not be apart"),
    Rule("dimension-unnamed", "a name for every dynamic dimension", _both("toolkit.engine"),
         "name the dimension in the ONNX file (dim_param)"),
    Rule("dimension-range", "a range for every dynamic dimension", _both("toolkit.engine"),
         "give its minimum, usual and maximum size under shapes"),
    Rule("shape-input", "sizes that follow from the shapes of inputs, not from their values",
         _both("toolkit.engine; RTX 1.7.1: profile is missing values for shape input tensor"),
         "make it a constant, or take the size from another input's shape"),
)  # fmt: skip

_FUNCTIONS = (
    Rule("function-name", "function names that differ from each other's and from operators'",
         _both("importer, LocalFunctionImporter: domain and overload are ignored"),
         "rename the function", "wrong values"),
    Rule("function-inputs", "as many inputs in a call as its function has",
         _both("importer, LocalFunctionImporter; RTX 1.7.1"), "pass every input"),
    Rule("function-attribute", "no attribute handed on through two functions",
         _both("parser of 10.x and RTX 1.7.1: the inner one reads 0"),
         "inline the inner function", "wrong values"),
    Rule("native-moe", "experts in operators that the builder has kernels for",
         _rtx("RTX 1.7.1's parser makes its MoE layer of TRT_MoE and its builder cannot lower it"),
         "lower the experts to conditionals or rows"),
    Rule("operator-domain", "names of ONNX's own operators in ONNX's own domain only",
         _both("importer: operators are looked up by name alone"),
         "rename the operator", "wrong values"),
)  # fmt: skip

_OPERATORS = (
    Rule("operator-unsupported", "an operator this builder has", None,
         "export it as other operators, or build for ONNX Runtime"),
    Rule("operator-unknown", "ONNX's operators, functions of the model, or a plugin",
         _both("importer, FallbackPluginImporter; RTX 1.7.1: plugin not found"),
         "export it as standard operators, or name its plugin"),
    Rule("operator-type", "a type this operator takes", None, "put a Cast before it"),
    Rule("uint8-inside", "uint8 as an input or output of the network and nowhere else",
         _both("operators.md, note on UINT8; RTX 1.7.1"), "cast it right behind the input"),
    Rule("types-differ", "operands of one type", _both("strongly typed networks; RTX 1.7.1"),
         "put a Cast before one of them"),
    Rule("cast-type", "a cast to a type that TensorRT has", _both("importer, Cast; RTX 1.7.1"),
         "cast to int32, int64, uint8, bool or a floating-point type"),
    Rule("scatternd-reduction", "ScatterND without a reduction",
         _both("importer, ScatterND; RTX 1.7.1"),
         "gather the old values, combine them and scatter the result"),
    Rule("scatterelements-reduction", "ScatterElements without a reduction",
         _rtx("RTX 1.7.1; a plugin in TensorRT"),
         "gather the old values, combine them and scatter the result"),
    Rule("topk-k", "k of at most 3840", _both("operators.md, TopK; RTX 1.7.1"), "lower k"),
    Rule("reduce-axes", "axes that are constant", _both("operators.md; RTX 1.7.1"),
         "make them an initializer"),
    Rule("unsqueeze-axes", "axes that are constant", _rtx("RTX 1.7.1; changelog 10.7 has dynamic"),
         "make them an initializer"),
    Rule("eyelike-shape", "an input of fixed size", _both("operators.md, EyeLike; RTX 1.7.1"),
         "compare two Ranges in its place"),
    Rule("hardmax-size", "an axis of fixed size", _both("operators.md, Hardmax; RTX 1.7.1"),
         "compare the ArgMax with a Range in its place"),
    Rule("onehot-depth", "a depth that is constant", _both("operators.md, OneHot; RTX 1.7.1"),
         "make it an initializer, or compare with a Range"),
    Rule("pool-dilations", "pooling without dilations", _both("importer, pooling; RTX 1.7.1")),
    Rule("pool-indices", "the first output of MaxPool only", _both("importer, MaxPool; RTX 1.7.1")),
    Rule("normalization-outputs", "the first output of LayerNormalization only",
         _both("operators.md, LayerNormalization; RTX 1.7.1")),
    Rule("training", "inference: no training mode",
         _both("importer, BatchNormalization and Dropout; RTX 1.7.1"), "export in eval mode"),
    Rule("resize-mode", "half_pixel, pytorch_half_pixel, tf_half_pixel_for_nn, asymmetric or "
         "align_corners, without antialiasing, and a stretched aspect ratio",
         _both("operators.md, Resize; RTX 1.7.1")),
    Rule("lstm-forget", "LSTM with input_forget 0", _both("operators.md, LSTM; RTX 1.7.1")),
    Rule("rnn-activations", "the same activations in both directions",
         _both("operators.md, GRU, LSTM and RNN; RTX 1.7.1")),
    Rule("einsum-letters", "an equation in small letters", _both("importer, Einsum; RTX 1.7.1"),
         "write the equation with small letters"),
    Rule("zero-point", "zero points of 0", _both("operators.md, QuantizeLinear; RTX 1.7.1"),
         "quantize symmetrically"),
    Rule("constant-kind", "constants of numbers", _both("operators.md, Constant; RTX 1.7.1"),
         "leave out constants of text and sparse ones"),
    Rule("random-type", "random numbers in float32 or float16",
         _both("importer, randomNormal and randomUniform; RTX 1.7.1")),
    Rule("norm-order", "p of 1 or 2", _both("importer, LpNormalization and LpPool")),
)  # fmt: skip

_CONTROL = (
    Rule("if-condition", "a condition that is one bool", _both("importer, If; RTX 1.7.1"),
         "reduce it to a scalar bool"),
    Rule("if-outputs", "branches with as many outputs as each other",
         _both("importer, If; RTX 1.7.1")),
    Rule("if-names", "branch outputs of different names",
         Limits(ALL_TENSORRT, None, "operators.md, If; RTX 1.7.1 takes equal ones"),
         "rename the outputs of one branch"),
    Rule("if-type", "branch outputs of one type", _both("conditional layers; RTX 1.7.1")),
    Rule("if-rank", "branch outputs of one rank", _both("operators.md, If; RTX 1.7.1")),
    Rule("if-shape", "branch outputs of one shape",
         Limits(Span("10", "10.11"), ALL_RTX, "conditional layers to 10.10; RTX 1.7.1"),
         "pad the smaller one, or slice behind the If"),
    Rule("if-nested", "one level of If", _rtx("RTX 1.7.1's builder fails"),
         "combine the conditions, or move the inner If out"),
    Rule("if-foreign-size", "sizes inside an If that follow from what is resized",
         _rtx("RTX 1.7.1's builder crashes"),
         "slice or expand outside the If, and compute inside", "crash"),
    Rule("if-attention", "no Attention inside an If",
         Limits(Span("10.14", "12"), ALL_RTX, "#4739, #4757; RTX 1.7.1"),
         "export attention as MatMul and Softmax (opset 22)"),
    Rule("if-resize", "no Resize right behind an If and a Transpose",
         Limits(Span("11.1", "11.3"), None, "#4846"),
         "resize before the If, or build with another release", "wrong values"),
    Rule("loop-condition", "an initial condition where the body reads it",
         _both("importer, Loop: the body's condition stays unregistered; RTX 1.7.1"),
         "give the Loop a condition that is true"),
    Rule("loop-scan-output", "a trip count where a Loop has scan outputs",
         _both("operators.md, Loop; RTX 1.7.1"), "give the Loop a trip count"),
    Rule("loop-carried-type", "values of one type all the way round",
         _both("recurrence layers; RTX 1.7.1")),
    Rule("loop-carried-shape", "values of one shape all the way round",
         _both("operators.md, Loop; RTX 1.7.1"), "give it its final size and fill it"),
)  # fmt: skip

RULES: dict[str, Rule] = {
    rule.name: rule for rule in (*_INTERFACE, *_FUNCTIONS, *_OPERATORS, *_CONTROL)
}
"""By name."""
