"""What surrounds the weights of the output: its element format and its ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import MergeError
from toolkit.merge.alignment import Alignment
from toolkit.merge.config import MergeConfig
from toolkit.merge.models import Model
from toolkit.merge.ties import Ties

__all__ = ["FORMATS", "element_format", "layer_count", "output_config"]

FORMATS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
_NAMES = {value: key for key, value in FORMATS.items()}
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def element_format(name: str | None) -> str | None:
    """The safetensors name of a dtype; None for none.

    Raises:
        MergeError: If it is not a floating-point format that can be written.
    """
    if name is None:
        return None
    short = name.removeprefix("torch.")
    if short not in FORMATS:
        raise MergeError(f"dtype is {name!r}", hint="one of " + ", ".join(FORMATS))
    return FORMATS[short]


def layer_count(config: Mapping[str, Any]) -> int | None:
    """The number of layers that a ``config.json`` states."""
    return next((config[key] for key in _COUNTS if isinstance(config.get(key), int)), None)


def output_config(
    config: MergeConfig, donor: Model, aligned: Alignment, written: str, ties: Ties
) -> dict[str, Any]:
    """The donor's ``config.json`` with what the merge changes.

    Args:
        config: The merge.
        donor: Whose config it is.
        aligned: All models, and the size of their vocabulary.
        written: safetensors name of the format of most of the output.
        ties: Whether head and embedding are still one.
    """
    result = dict(donor.config)
    if not result:
        return result
    for key in ("dtype", "torch_dtype"):
        if key in result or (key == "torch_dtype" and "dtype" not in result):
            result[key] = _NAMES[written]
    if ties.somewhere and not ties.everywhere:
        result["tie_word_embeddings"] = False
    if aligned.size is not None and "vocab_size" in result:
        result["vocab_size"] = aligned.size
    if config.slices:
        _set_layers(result, config, aligned.models)
    return result


def _set_layers(result: dict[str, Any], config: MergeConfig, models: Mapping[str, Model]) -> None:
    """Set the number of layers, and pick the entries of lists with one per layer."""
    parts = [part.sources[0] for part in config.slices or ()]
    before = layer_count(result)
    for key in _COUNTS:
        if key in result:
            result[key] = sum(source.layer_range[1] - source.layer_range[0] for source in parts)
    for key, value in list(result.items()):
        if isinstance(value, list) and before and len(value) == before:
            lists = [(models[s.model].config.get(key, value), s.layer_range) for s in parts]
            result[key] = [item for items, (first, stop) in lists for item in items[first:stop]]
