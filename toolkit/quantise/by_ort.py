"""Quantises with onnxruntime.quantization."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import graphs
from toolkit.errors import CapabilityError
from toolkit.protos import every_node
from toolkit.quantise.options import CONVOLUTIONS, LARGE, PRODUCTS, QuantiseOptions, Quantiser
from toolkit.quantise.readers import Reader

if TYPE_CHECKING:
    import onnx

    from toolkit.runtime import Feeds

__all__ = ["quantise_dynamically", "quantise_statically", "quantise_weights"]

# What ONNX Runtime clips in the codes of the product before it, or looks for in codes.
_IN_CODES = {"Relu", "Clip", "MaxPool"}


def quantise_statically(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    """Weights and activations in 8 bits, ranges from calibration; says which version did it."""
    who = _ort()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    if options.tensorrt:
        # It fuses what follows a product itself, and its parser takes no bias in 32-bit codes.
        kinds, seen = CONVOLUTIONS, QuantType.QInt8
        extra: dict[str, Any] = {
            "ActivationSymmetric": True,
            "OpTypesToExcludeOutputQuantization": sorted(CONVOLUTIONS),
            "QuantizeBias": False,
        }
    else:
        # ONNX Runtime makes uint8 of int8, but not where several nodes read one value.
        kinds, seen, extra = CONVOLUTIONS | _IN_CODES, QuantType.QUInt8, {}
    quantize_static(
        src,
        out,
        Reader(feeds, src),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=sorted(kinds),
        per_channel=True,
        activation_type=seen,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(kept),
        use_external_data_format=graphs.describe(src).bytes > LARGE,
        extra_options={"WeightSymmetric": True, **extra},
    )
    return who


def quantise_dynamically(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    """Weights in 8 bits, activations too when it runs; says which version did it."""
    del feeds, options
    who = _ort()
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    quantize_dynamic(
        src,
        out,
        op_types_to_quantize=sorted(PRODUCTS),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_as_products(kept),
        use_external_data_format=graphs.describe(src).bytes > LARGE,
        extra_options={"MatMulConstBOnly": True},
    )
    return who


def quantise_weights(bits: int) -> Quantiser:
    """What quantises weights alone, in blocks, to 4 or 8 bits."""

    def call(
        src: Path,
        out: Path,
        options: QuantiseOptions,
        kept: tuple[str, ...],
        feeds: Iterable[Feeds],
    ) -> str:
        del feeds
        who = _ort()
        import onnx  # noqa: PLC0415
        from onnxruntime.quantization import QuantFormat  # noqa: PLC0415
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415
            MatMulNBitsQuantizer,
        )

        model = _products_alone(onnx.load(src))
        # ONNX Runtime cannot read the codes of a branch that lie outside of it as ONNX's own.
        left = _in_branches(model) if options.tensorrt else ()
        quantiser = MatMulNBitsQuantizer(
            model, bits=bits, block_size=options.block, is_symmetric=True,
            nodes_to_exclude=_as_products((*kept, *left)),
            quant_format=QuantFormat.QDQ if options.tensorrt else QuantFormat.QOperator,
        )  # fmt: skip
        quantiser.process()
        large = graphs.describe(src).bytes > LARGE
        quantiser.model.save_model_to_file(str(out), large)
        return who

    return call


def _in_branches(model: onnx.ModelProto) -> tuple[str, ...]:
    main = {node.name for node in model.graph.node}
    return tuple(node.name for node in every_node(model.graph.node) if node.name not in main)


def _as_products(kept: tuple[str, ...]) -> list[str]:
    """Names, and what ONNX Runtime's quantiser calls a Gemm once it is a MatMul."""
    return [*kept, *(f"{name}_MatMul" for name in kept)]


def _products_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gemm as MatMul and Add, because weights alone are quantised in MatMul alone."""
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    made: onnx.ModelProto = wrapped.model
    return made


def _ort() -> str:
    try:
        import onnxruntime.quantization  # noqa: F401, PLC0415
    except ImportError as error:
        raise CapabilityError(
            "ONNX Runtime is not installed, and its quantiser is needed",
            hint="pip install 'ensemble-to-engine[cpu]'",
        ) from error
    return f"onnxruntime.quantization {version('onnxruntime')}"
