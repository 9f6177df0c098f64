"""Small checkpoints in Hugging Face's layout, made of NumPy arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32"}
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
    "num_hidden_layers": 3, "vocab_size": 40, "torch_dtype": "float32",
    "tie_word_embeddings": False,
}  # fmt: skip


def shapes(layers: int = 3, hidden: int = 16, vocabulary: int = 40) -> dict[str, tuple[int, ...]]:
    found = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        found[at + "self_attn.q_proj.weight"] = (hidden, hidden)
        found[at + "mlp.up_proj.weight"] = (2 * hidden, hidden)
        found[at + "input_layernorm.weight"] = (hidden,)
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def weights(seed: int, change: float = 0.05, **sizes: int) -> dict[str, np.ndarray]:
    """Fine-tunes of one base; seed 0 is the base itself."""
    base, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    found = {}
    for name, shape in shapes(**sizes).items():
        array = base.normal(size=shape)
        if seed:
            array = array + change * own.normal(size=shape)
        found[name] = array.astype(np.float32)
    return found


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def entry(array: np.ndarray, dtype: str | None) -> tuple[str, bytes]:
    name = dtype or ("BF16" if array.dtype == np.uint16 else NAMES[array.dtype.name])
    return name, array.tobytes()


def save_file(
    path: Path, tensors: dict[str, np.ndarray], dtypes: dict[str, str] | None = None
) -> None:
    """Write safetensors; uint16 arrays are bfloat16 bits unless ``dtypes`` says otherwise."""
    header, data, position = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in tensors.items():
        dtype, content = entry(array, (dtypes or {}).get(name))
        stop = position + len(content)
        header[name] = {
            "dtype": dtype, "shape": list(array.shape), "data_offsets": [position, stop]
        }  # fmt: skip
        data.append(content)
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def save(
    folder: Path,
    tensors: dict[str, np.ndarray],
    dtypes: dict[str, str] | None = None,
    **config: object,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(folder / "model.safetensors", tensors, dtypes)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


def family(
    folder: Path, names: tuple[str, ...] = ("base", "a", "b"), *, half: bool = False
) -> Path:
    """Fine-tunes named a, b, … and their base, each in a folder of its own."""
    for seed, name in enumerate(names):
        found = weights(seed)
        if half:
            found = {name: to_bfloat16(array) for name, array in found.items()}
        save(folder / name, found, torch_dtype="bfloat16" if half else "float32")
    return folder
