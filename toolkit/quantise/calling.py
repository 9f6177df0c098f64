"""Calls onnxruntime.quantization, or NVIDIA's ModelOpt, on a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import graphs
from toolkit.errors import CapabilityError, ExportError
from toolkit.quantise.options import Low, Quantised, QuantiseOptions

if TYPE_CHECKING:
    import onnx

    from toolkit.runtime import Feeds

__all__ = ["QUANTISERS", "quantise"]

_PRODUCTS = {"MatMul", "Gemm"}
_LARGE = 1 << 30  # protobuf ends at 2 GiB, and a quantiser holds weights twice


def quantise(src: Path, out: Path, options: QuantiseOptions, feeds: Iterable[Feeds]) -> Quantised:
    """Write ``src`` in low precision; ``out`` may be ``src``.

    Products and convolutions of the main graph are quantised, with constant weights; branches of
    control flow and everything between stay in float32.

    Args:
        src: A graph in float32.
        out: The file to write.
        options: How.
        feeds: Real inputs for calibration; read for ``int8`` and ``fp8`` alone.

    Raises:
        CapabilityError: If the quantiser is not installed.
        ExportError: If it fails, or quantises nothing.
    """
    import onnx  # noqa: PLC0415

    model = onnx.load(src, load_external_data=False)
    kinds = _PRODUCTS if options.precision != "int8" else {*_PRODUCTS, "Conv"}
    found = [node.name for node in model.graph.node if node.op_type in kinds]
    kept = tuple(n for n in found if any(fnmatchcase(n, p) for p in options.keep))
    del model
    with TemporaryDirectory(dir=out.parent, prefix=".quantise.") as folder:
        made = Path(folder) / "quantised.onnx"
        call = QUANTISERS[options.precision]
        with _quiet():
            who = call(src, made, options, kept, feeds)
        before, after = graphs.describe(src), graphs.describe(made)
        count = _quantised(made)
        if not count:
            raise ExportError(
                f"export.precision {options.precision} quantised nothing: of the main graph's "
                f"nodes {len(found)} are products or convolutions, {len(kept)} of them kept",
                hint="it needs a MatMul, Gemm or, for int8, a Conv with constant weights",
            )
        graphs.rewrite(made, [], out)
    return Quantised(who, count, kept, before.bytes, after.bytes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Quantisers log advice about a preparation that exporting has done already."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _quantised(path: Path) -> int:
    """Products that read quantised weights."""
    import onnx  # noqa: PLC0415

    graph = onnx.load(path, load_external_data=False).graph
    coded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    whole = {"MatMulNBits", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"}
    return sum(
        node.op_type in whole or (node.op_type in {*_PRODUCTS, "Conv"} and node.input[1] in coded)
        for node in graph.node
    )


def _ort() -> str:
    try:
        import onnxruntime.quantization  # noqa: F401, PLC0415
    except ImportError as error:
        raise CapabilityError(
            "ONNX Runtime is not installed, and its quantiser is needed",
            hint="pip install 'ensemble-to-engine[cpu]'",
        ) from error
    return f"onnxruntime.quantization {version('onnxruntime')}"


class _Reader:
    """Feeds as ONNX Runtime's calibration reads them; only those the graph declares."""

    def __init__(self, feeds: Iterable[Feeds], names: Iterable[str]) -> None:
        self._names = set(names)
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        for feeds in self._feeds:
            return {name: array for name, array in feeds.items() if name in self._names}
        return None


def _static(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    who = _ort()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    quantize_static(
        src,
        out,
        _Reader(feeds, [value.name for value in graphs.describe(src).inputs]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*_PRODUCTS, "Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(kept),
        use_external_data_format=graphs.describe(src).bytes > _LARGE,
        extra_options={"ActivationSymmetric": options.symmetric, "WeightSymmetric": True},
    )
    return who


def _dynamic(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    del feeds, options
    who = _ort()
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    quantize_dynamic(
        src,
        out,
        op_types_to_quantize=sorted(_PRODUCTS),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_as_products(kept),
        use_external_data_format=graphs.describe(src).bytes > _LARGE,
        extra_options={"MatMulConstBOnly": True},
    )
    return who


def _weights(bits: int) -> _Quantiser:
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
        from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415
            MatMulNBitsQuantizer,
        )

        model = _products_alone(onnx.load(src))
        quantiser = MatMulNBitsQuantizer(
            model, bits=bits, block_size=options.block, is_symmetric=True,
            nodes_to_exclude=_as_products(kept),
        )  # fmt: skip
        quantiser.process()
        large = graphs.describe(src).bytes > _LARGE
        quantiser.model.save_model_to_file(str(out), large)
        return who

    return call


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


def _fp8(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    del options
    try:
        import modelopt.onnx.quantization as modelopt  # noqa: PLC0415
    except ImportError as error:
        raise CapabilityError(
            "export.precision fp8 needs NVIDIA's ModelOpt, which is not installed",
            hint="pip install 'nvidia-modelopt[onnx]', or use int8",
        ) from error
    import numpy as np  # noqa: PLC0415

    arrays: dict[str, list[Any]] = {}
    for given in feeds:
        for name, array in given.items():
            arrays.setdefault(name, []).append(array)
    modelopt.quantize(
        onnx_path=str(src),
        quantize_mode="fp8",
        calibration_data={name: np.concatenate(parts) for name, parts in arrays.items()},
        nodes_to_exclude=list(kept),
        output_path=str(out),
    )
    return f"nvidia-modelopt {version('nvidia-modelopt')}"


_Quantiser = Callable[[Path, Path, QuantiseOptions, tuple[str, ...], "Iterable[Feeds]"], str]

QUANTISERS: Mapping[Low, _Quantiser] = {
    "int8": _static,
    "int8_dynamic": _dynamic,
    "int8_weights": _weights(8),
    "int4_weights": _weights(4),
    "fp8": _fp8,
}
"""Each writes a quantised file and says what did it."""
