"""Safetensors files written byte by byte, so that every rule can be broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def raw(path: Path, header: object, data: bytes = b"") -> Path:
    """A file from a header (an object, or the bytes themselves) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: object, start: object, stop: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def model_folder(folder: Path, **tensors: np.ndarray) -> Path:
    """A Hugging Face folder with one weight file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    save_file(tensors or {"w": np.ones(3, np.float32)}, folder / "model.safetensors")
    return folder


def sharded_folder(folder: Path, weight_map: dict[str, str] | object = None) -> Path:
    """A folder with tensors a and b in two shards; ``weight_map`` replaces the true index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file({"a": np.arange(3, dtype=np.float32)}, folder / "one.safetensors")
    save_file({"b": np.arange(4, dtype=np.int64)}, folder / "two.safetensors")
    true = {"a": "one.safetensors", "b": "two.safetensors"}
    index = {"metadata": {}, "weight_map": true if weight_map is None else weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
