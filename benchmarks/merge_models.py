"""Llama-shaped checkpoints of any size, written without holding them: a base and fine-tunes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["FULL", "QUICK", "Shape", "write_family"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    keys: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in transformers' order."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for n in range(self.layers):
            at = f"model.layers.{n}."
            yield at + "input_layernorm.weight", (self.hidden,)
            yield at + "self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield at + "self_attn.k_proj.weight", (self.keys, self.hidden)
            yield at + "self_attn.v_proj.weight", (self.keys, self.hidden)
            yield at + "self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield at + "post_attention_layernorm.weight", (self.hidden,)
            yield at + "mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield at + "mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield at + "mlp.down_proj.weight", (self.hidden, self.intermediate)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def config(self, dtype: str) -> dict[str, object]:
        """``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.keys // 64, "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "tie_word_embeddings": False, "torch_dtype": dtype,
        }  # fmt: skip


FULL = Shape(hidden=1536, intermediate=4096, layers=22, vocabulary=32000, keys=512)
QUICK = Shape(hidden=512, intermediate=1408, layers=6, vocabulary=8000, keys=128)


def write_family(
    folder: Path, shape: Shape, names: tuple[str, ...], *, dtype: str = "bfloat16", shards: int = 4
) -> int:
    """Write a base, the first name, and fine-tunes of it; returns the bytes of one.

    Matrices have a standard deviation of 0.02 and fine-tunes differ by a tenth of that.
    """
    tensors = list(shape.tensors())
    width = {"bfloat16": 2, "float32": 4}[dtype]
    sizes = [width * int(np.prod(s)) for _, s in tensors]
    groups = np.minimum(np.cumsum(sizes) * shards // (sum(sizes) + 1), shards - 1)
    for which, name in enumerate(names):
        out = folder / name
        out.mkdir(parents=True)
        weight_map = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            own = [t for t, group in zip(tensors, groups, strict=True) if group == shard]
            _write_shard(out / file, own, which, dtype)
            weight_map |= dict.fromkeys((t for t, _ in own), file)
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index))
        (out / "config.json").write_text(json.dumps(shape.config(dtype)))
    return sum(sizes)


def _write_shard(
    path: Path, tensors: list[tuple[str, tuple[int, ...]]], which: int, dtype: str
) -> None:
    width = {"bfloat16": 2, "float32": 4}[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors:
        stop = position + width * int(np.prod(shape))
        entry = {"dtype": {2: "BF16", 4: "F32"}[width], "shape": shape}
        header[name] = entry | {"data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors:
            file.write(_values(name, shape, which, dtype))


def _values(name: str, shape: tuple[int, ...], which: int, dtype: str) -> bytes:
    seed = list(name.encode())
    values = 0.02 * np.random.default_rng(seed).standard_normal(shape, np.float32)
    if len(shape) == 1:
        values += 1
    if which:
        values += 0.002 * np.random.default_rng([*seed, which]).standard_normal(shape, np.float32)
    if dtype == "float32":
        return values.tobytes()
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
