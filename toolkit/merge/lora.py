"""LoRA adapters in PEFT's layout, added to their base model's tensors as these are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.checkpoint import read_header
from toolkit.errors import MergeError
from toolkit.merge.tensors import FLOATS, STORED, FileTensor, OpenFiles, Tensor, convert

__all__ = ["LoraTensor", "adapted"]

Array = npt.NDArray[Any]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Options under which the update is not scale * B A.
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias", "alora_invocation_tokens")


@dataclass(frozen=True)
class LoraTensor:
    """``W + scale * B A`` (Hu et al. 2021, arXiv:2106.09685), computed as it is read.

    The sum is rounded to float32, not to the base's format as mergekit's is, before it is merged.

    Attributes:
        base: ``W``, ``[out, in]``.
        up: ``B``, ``[out, r]``.
        down: ``A``, ``[r, in]``.
        scale: ``alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilised adapters.
    """

    base: Tensor
    up: Tensor
    down: Tensor
    scale: float

    @property
    def dtype(self) -> str:
        """float32, or float64 for a base of that."""
        return "F64" if self.base.dtype == "F64" else "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the base."""
        return self.base.shape

    def read(self, start: int, out: Array) -> None:
        """Compute the rows that hold a range, each element in the same order whatever the range."""
        rank, width = self.down.shape
        first, stop = start // width, (start + out.size - 1) // width + 1
        up = _wide(self.up, first * rank, (stop - first) * rank).reshape(-1, rank)
        down = _wide(self.down, 0, rank * width).reshape(rank, width)
        total = np.zeros((stop - first, width))
        for k in range(rank):
            total += up[:, k, None] * down[k]
        skip = start - first * width
        update = self.scale * total.reshape(-1)[skip : skip + out.size]
        out[:] = _wide(self.base, start, out.size) + update


def _wide(tensor: Tensor, start: int, count: int) -> Array:
    """A range of a tensor as float64."""
    stored = np.empty(count, STORED[tensor.dtype])
    tensor.read(start, stored)
    out = np.empty(count, np.float64)
    convert(stored, tensor.dtype, out)
    return out


def adapted(
    reference: str, tensors: Mapping[str, Tensor], folder: Path, files: OpenFiles
) -> dict[str, Tensor]:
    """A base model's tensors with an adapter's updates.

    Raises:
        MergeError: If the adapter is of a kind that is not ``scale * B A``, or does not fit.
    """
    config = _read_config(folder)
    header = read_header(folder / _WEIGHTS)
    stored = {
        name: FileTensor(header.path, entry.start, entry.dtype, entry.shape, files)
        for name, entry in header.entries.items()
    }
    result = dict(tensors)
    for name, tensor in stored.items():
        target, is_down = _target(reference, name)
        if is_down:
            pair = (tensor, stored.get(name.replace("lora_A", "lora_B")))
            result[target] = _updated(reference, target, tensors, pair, config)
    return result


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MergeError(f"cannot read adapter {path}: {error.strerror}") from error
    except ValueError as error:
        raise MergeError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise MergeError(f"{path} does not describe a LoRA adapter (peft_type: LORA)")
    for option in _UNSUPPORTED:
        if config.get(option):
            raise MergeError(f"{path}: adapters with {option} cannot be merged here")
    if config.get("modules_to_save"):
        raise MergeError(f"{path}: adapters with modules_to_save cannot be merged here")
    return config


def _target(reference: str, name: str) -> tuple[str, bool]:
    """The base tensor that an adapter's tensor is about, and whether it is the down projection."""
    for middle, is_down in ((".lora_A.", True), (".lora_B.", False)):
        module, found, _ = name.removeprefix(_PREFIX).partition(middle)
        if found:
            return f"{module}.weight", is_down
    raise MergeError(f"{reference}: adapter tensor {name!r} is neither lora_A nor lora_B")


def _updated(
    reference: str,
    target: str,
    tensors: Mapping[str, Tensor],
    pair: tuple[Tensor, Tensor | None],
    config: Mapping[str, Any],
) -> LoraTensor:
    down, up = pair
    if target not in tensors:
        raise MergeError(f"{reference}: the adapter changes {target!r}, which the base lacks")
    base = tensors[target]
    if up is None or len(down.shape) != 2 or (up.shape[0], down.shape[1]) != base.shape:
        found = "nothing" if up is None else f"{list(up.shape)} x {list(down.shape)}"
        raise MergeError(
            f"{reference}: the adapter's update of {target!r} is {found}, and the base has "
            f"{list(base.shape)}"
        )
    if up.shape[1] != down.shape[0]:
        raise MergeError(f"{reference}: ranks of the update of {target!r} differ")
    if {base.dtype, up.dtype, down.dtype} - set(FLOATS):
        raise MergeError(f"{reference}: the update of {target!r} is not of floating point")
    return LoraTensor(base, up, down, _scale(target, down.shape[0], config))


def _scale(target: str, rank: int, config: Mapping[str, Any]) -> float:
    module = target.removesuffix(".weight")
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith("." + pattern):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
