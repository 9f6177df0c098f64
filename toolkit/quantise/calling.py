"""Calls onnxruntime.quantization, or NVIDIA's ModelOpt, on a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import graphs
from toolkit.errors import ExportError
from toolkit.protos import every_node
from toolkit.quantise.by_modelopt import quantise_to_fp8
from toolkit.quantise.by_ort import quantise_dynamically, quantise_statically, quantise_weights
from toolkit.quantise.options import (
    CONVOLUTIONS,
    PRODUCTS,
    Low,
    Quantised,
    QuantiseOptions,
    Quantiser,
)

if TYPE_CHECKING:
    from toolkit.runtime import Feeds

__all__ = ["QUANTISERS", "quantise"]

_CODES_OF_4_BITS = 21  # opset from which on ONNX has them


def quantise(src: Path, out: Path, options: QuantiseOptions, feeds: Iterable[Feeds]) -> Quantised:
    """Write ``src`` in low precision; ``out`` may be ``src``.

    Products and convolutions of the main graph are quantised, with constant weights; everything
    between stays in float32, and so do branches of control flow, unless it is weights alone and
    for ONNX Runtime.

    Args:
        src: A graph in float32.
        out: The file to write.
        options: How.
        feeds: Real inputs for calibration; read for ``int8`` and ``fp8`` alone.

    Raises:
        CapabilityError: If the quantiser is not installed.
        ExportError: If it fails, or quantises nothing, or the graph is older than its types.
    """
    import onnx  # noqa: PLC0415

    before = graphs.describe(src)
    opset = before.opset
    if options.tensorrt and options.precision == "int4_weights" and opset < _CODES_OF_4_BITS:
        raise ExportError(
            f"{src.name} has opset {opset}, wanted {_CODES_OF_4_BITS}, which has types of 4 bits",
            hint="export: {opset: 21}; an ONNX file that the recipe names has to be of it too",
        )
    model = onnx.load(src, load_external_data=False)
    kinds = PRODUCTS if options.precision != "int8" else CONVOLUTIONS
    found = [node.name for node in every_node(model.graph.node) if node.op_type in kinds]
    kept = tuple(n for n in found if any(fnmatchcase(n, p) for p in options.keep))
    del model
    with TemporaryDirectory(dir=out.parent, prefix=".quantise.") as folder:
        made = Path(folder) / "quantised.onnx"
        call = QUANTISERS[options.precision]
        with _quiet():
            who = call(src, made, options, kept, feeds)
        _put_in_order(made)
        after = graphs.describe(made)
        count = _quantised(made)
        if not count:
            raise ExportError(
                f"export.precision {options.precision} quantised nothing: of the graph's nodes "
                f"{len(found)} are products or convolutions, {len(kept)} of them kept",
                hint="it needs a MatMul, Gemm or, for int8, a Conv with constant weights, and "
                "outside of branches",
            )
        graphs.rewrite(made, [], out)
    return Quantised(who, count, kept, before.bytes, after.bytes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Quantisers log advice about a preparation that exporting has done already, and print.

    One of them makes the root logger talk when it is imported.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)


def _put_in_order(path: Path) -> None:
    """Quantisers sort by what nodes read, and overlook what their branches read."""
    import onnx_ir as ir  # noqa: PLC0415

    model = ir.load(path)
    model.graph.sort()
    ir.save(model, path)


def _quantised(path: Path) -> int:
    """Products that read quantised weights."""
    import onnx  # noqa: PLC0415

    nodes = list(every_node(onnx.load(path, load_external_data=False).graph.node))
    coded = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    whole = {"MatMulNBits", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"}
    return sum(
        node.op_type in whole or (node.op_type in CONVOLUTIONS and node.input[1] in coded)
        for node in nodes
    )


QUANTISERS: Mapping[Low, Quantiser] = {
    "int8": quantise_statically,
    "int8_dynamic": quantise_dynamically,
    "int8_weights": quantise_weights(8),
    "int4_weights": quantise_weights(4),
    "fp8": quantise_to_fp8,
}
"""Each writes a quantised file and says what did it."""
