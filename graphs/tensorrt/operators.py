"""Which operators there are and which types they take: data, with where each fact comes from.

Sources, by the key that rows name:

* ``operators.md``: docs/operators.md of onnx-tensorrt, release 10.1.
* ``importer``: onnxOpImporters.cpp and onnxOpCheckers.cpp of the same release.
* ``changelog``: CHANGELOG.md of NVIDIA/TensorRT, the release named.
* ``RTX 1.7.1``: tried with TensorRT-RTX's parser and builder; a test tries it again.

TensorRT-RTX's parser is that of TensorRT 11, so what it takes holds for 11 as well unless a plugin
is missing. Where a document and the trial differ, each flavour has its own row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphs.tensorrt.spans import ALL_RTX, ALL_TENSORRT, Limits, Span

__all__ = ["OPERATORS", "STORED", "TYPES", "TYPE_EXCEPTIONS", "TypeException", "Types"]

FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"})
WHOLE = frozenset({"INT32", "INT64"})
NUMBERS = FLOATS | WHOLE | {"INT8"}
VALUES = NUMBERS | {"BOOL"}
QUANTISED = frozenset({"FLOAT8E4M3FN", "FLOAT8E8M0", "FLOAT4E2M1", "INT4"})

STORED = VALUES | {"UINT8"} | QUANTISED
"""Types that inputs, outputs, weights and casts may have; ``importer``, convertDtype."""


def _since(version: str, source: str) -> Limits:
    return Limits(Span("10", version), None, source)


def _not_in_rtx(source: str) -> Limits:
    return Limits(None, ALL_RTX, source)


_NOWHERE = Limits(ALL_TENSORRT, ALL_RTX, "operators.md and RTX 1.7.1's supports_operator")

_ALWAYS = (
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization "
    "Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh "
    "CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike "
    "Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool "
    "GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish "
    "Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu "
    "Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean "
    "MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RNN "
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 "
    "ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare Relu Reshape Resize ReverseSequence Round STFT Scan Scatter ScatterElements "
    "ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign "
    "SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu "
    "Unsqueeze Upsample Where Xor"
)
_NEVER = (
    "AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor "
    "CenterCropPad Col2Im Compress ConcatFromSequence ConvInteger CumProd DFT Det "
    "DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix "
    "Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement "
    "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty "
    "SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss "
    "SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer Unique"
)

OPERATORS: Mapping[str, Limits] = {
    **dict.fromkeys(_ALWAYS.split(), Limits(None, None, "operators.md")),
    **dict.fromkeys(_NEVER.split(), _NOWHERE),
    "Attention": Limits(
        Span("10", "10.14"), ALL_RTX, "changelog 10.14; RTX 1.7.1 crashes or cannot decompose it"
    ),
    "RMSNormalization": _since("10.15", "changelog 10.15"),
    "RotaryEmbedding": _since("10.15", "changelog 10.15"),
    "TensorScatter": _since("10.15", "changelog 10.15"),
    "Swish": _since("11", "changelog 11.0"),
    # In no list of 10.x and known to the parser of RTX 1.7.1, which is that of TensorRT 11.
    "BlackmanWindow": _since("11", "operators.md says no; RTX 1.7.1"),
    "HammingWindow": _since("11", "operators.md says no; RTX 1.7.1"),
    "HannWindow": _since("11", "operators.md says no; RTX 1.7.1"),
    # TensorRT has these as plugins of its own, TensorRT-RTX comes without plugins.
    "DeformConv": _not_in_rtx("importer, DeformConv; RTX 1.7.1: plugin not found"),
    "NonMaxSuppression": _not_in_rtx("operators.md; RTX 1.7.1: no runner implements it"),
    "NonZero": _not_in_rtx("importer, NonZero; RTX 1.7.1: plugin not found"),
    "RoiAlign": _not_in_rtx("changelog 10.1, a plugin; RTX 1.7.1's builder crashes"),
}
"""By name, as TensorRT's parser looks them up; an operator that is not here is not ONNX's own."""


@dataclass(frozen=True)
class Types:
    """The types of an operator's values.

    Attributes:
        allowed: Names of ``onnx_ir.DataType``.
        inputs: Which inputs these are of; none for the output.
    """

    allowed: frozenset[str]
    inputs: tuple[int, ...] = (0,)


def _rows(names: str, allowed: frozenset[str], inputs: tuple[int, ...] = (0,)) -> dict[str, Types]:
    return dict.fromkeys(names.split(), Types(allowed, inputs))


_BOTH = (0, 1)

TYPES: Mapping[str, Types] = {
    **_rows("And Or Xor", frozenset({"BOOL"}), _BOTH),
    **_rows("Not", frozenset({"BOOL"})),
    **_rows(
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Conv Cos Cosh "
        "Elu Erf Exp Floor Gelu GlobalAveragePool HardSigmoid HardSwish Hardmax IsInf IsNaN "
        "LayerNormalization LeakyRelu Log LogSoftmax LpNormalization Mish Reciprocal ReduceL2 "
        "ReduceLogSum ReduceLogSumExp RMSNormalization Round Selu Sigmoid Sin Sinh Softmax "
        "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
        FLOATS,
    ),
    **_rows("MatMul Gemm Einsum PRelu Mean Sum", FLOATS, _BOTH),
    **_rows("ReduceL1 ReduceMean ReduceProd ReduceSum ReduceSumSquare", FLOATS | WHOLE),
    **_rows("Clip CumSum Pow Range", FLOATS | WHOLE),
    **_rows("Add Sub Mul Div Max Min", NUMBERS, _BOTH),
    **_rows("Greater GreaterOrEqual Less LessOrEqual", NUMBERS, _BOTH),
    **_rows(
        "Abs Neg Sign Shrink ArgMax ArgMin ReduceMax ReduceMin TopK DepthToSpace SpaceToDepth Relu",
        NUMBERS,
    ),
    **_rows("Resize MaxPool", FLOATS | {"INT8"}),
    **_rows("ConstantOfShape", FLOATS | WHOLE | {"BOOL"}, ()),
    **_rows(
        "Expand Gather GatherElements GatherND Pad Reshape Slice Split Squeeze Tile Transpose "
        "Trilu Unsqueeze",
        VALUES,
    ),
    **_rows("Concat", VALUES, _BOTH),
    **_rows("Where OneHot", VALUES, (2,)),
    **_rows("ScatterND ScatterElements", VALUES, (0, 2)),
}
"""Tried with RTX 1.7.1, every operator with every type; not narrower than ``operators.md`` says."""


@dataclass(frozen=True)
class TypeException:
    """Types that are in ``TYPES`` and that some versions refuse."""

    operator: str
    types: frozenset[str]
    limits: Limits


TYPE_EXCEPTIONS = (
    TypeException(
        "CumSum", WHOLE, Limits(Span("10", "11"), None, "operators.md: FP32, FP16, BF16")
    ),
    TypeException(
        "Pow", WHOLE, Limits(Span("10", "10.12"), None, "changelog 10.12: integer bases")
    ),
    TypeException(
        "Relu", frozenset({"INT32"}), Limits(None, ALL_RTX, "RTX 1.7.1: unsupported input type")
    ),
)
