"""Quantises with NVIDIA's ModelOpt."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import graphs
from toolkit.errors import CapabilityError
from toolkit.quantise.options import LARGE, QuantiseOptions
from toolkit.quantise.readers import Reader, Rewinding

if TYPE_CHECKING:
    from toolkit.runtime import Feeds

__all__ = ["quantise_to_fp8"]

# Its own extra asks for an older ONNX and for ONNX Runtime's build for GPUs.
_PACKAGES = "nvidia-modelopt onnx-graphsurgeon onnxslim lief nvidia-ml-py"


def quantise_to_fp8(
    src: Path, out: Path, options: QuantiseOptions, kept: tuple[str, ...], feeds: Iterable[Feeds]
) -> str:
    """Products and convolutions in E4M3, the rest in float32; says which version did it.

    What it finds too small to gain, fewer than 16 inputs or outputs, it leaves in float32.

    Raises:
        CapabilityError: If it is not installed.
    """
    del options
    try:
        import modelopt.onnx.quantization as modelopt  # noqa: PLC0415
    except ImportError as error:
        raise CapabilityError(
            "export.precision fp8 needs NVIDIA's ModelOpt, which is not installed",
            hint=f"pip install --no-deps {_PACKAGES}; or use int8",
        ) from error
    modelopt.quantize(
        onnx_path=str(src),
        quantize_mode="fp8",
        calibration_data_reader=Rewinding(Reader(feeds, src)),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",  # it would lower the rest to float16
        mha_accumulation_dtype="fp32",
        nodes_to_exclude=list(kept),
        use_external_data_format=graphs.describe(src).bytes > LARGE,
        output_path=str(out),
    )
    return f"nvidia-modelopt {version('nvidia-modelopt')}"
