"""Checkpoints that must not be averaged as numbers, recognised from their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import MergeError
from toolkit.merge.tensors import STORED

__all__ = ["refuse_quantised"]

# Names that quantisation libraries give to packed weights and their scales: GPTQ and AWQ,
# compressed-tensors, DeepSeek's FP8, bitsandbytes.
_PACKED = (
    ".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale",
    ".weight_scale_inv", ".input_scale", ".weight_zero_point", ".SCB", ".absmax", ".quant_map",
    ".quant_state", ".nested_absmax", ".weight_format",
)  # fmt: skip
_HINT = (
    "dequantise it first: load it with transformers and save it with save_pretrained in bfloat16"
)


def refuse_quantised(label: str, config: Mapping[str, Any], dtypes: Mapping[str, str]) -> None:
    """Raise if a checkpoint's numbers are codes.

    Args:
        label: What to call it.
        config: Its ``config.json``.
        dtypes: safetensors dtype by tensor name.

    Raises:
        MergeError: If it is quantised, or holds element types that no method computes with.
    """
    settings = config.get("quantization_config")
    if settings:
        method = settings.get("quant_method", "unnamed") if isinstance(settings, dict) else settings
        raise MergeError(
            f"{label} is quantised (quantization_config: {method}); averages of codes have no "
            "meaning",
            hint=_HINT,
        )
    for name, dtype in dtypes.items():
        if name.endswith(_PACKED) or ".quant_state." in name:
            raise MergeError(
                f"{label}: tensor {name!r} belongs to a quantised weight, and averages of codes "
                "have no meaning",
                hint=_HINT,
            )
        if dtype not in STORED:
            raise MergeError(
                f"{label}: tensor {name!r} is {dtype}, and merging computes with "
                "BF16, F16, F32 and F64",
                hint=_HINT if dtype.startswith("F") else "",
            )
