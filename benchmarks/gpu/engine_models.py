"""The models whose engines are measured: written to a folder, weights random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.families import FAMILIES, Size
from toolkit.recipe import Recipe, load_recipe

__all__ = ["LOWERINGS", "SUBJECTS", "Scale", "Subject", "write_subject"]

# Those of a layer of experts that TensorRT has; ``native`` is ONNX Runtime's own operator.
LOWERINGS = ("conditionals", "rows", "dense", "batched")


@dataclass(frozen=True)
class Scale:
    """How large models are."""

    layers: int
    width: int
    experts: int
    vocabulary: int
    batch: int
    tokens: int

    @classmethod
    def full(cls) -> Scale:
        """As large as models that are served."""
        return cls(layers=12, width=768, experts=8, vocabulary=32_000, batch=8, tokens=128)

    @classmethod
    def tiny(cls) -> Scale:
        """What shows in seconds that everything but a GPU is there."""
        return cls(layers=1, width=32, experts=4, vocabulary=97, batch=2, tokens=6)


@dataclass(frozen=True)
class Subject:
    """One recipe.

    Attributes:
        name: What tables call it.
        write: Given a folder and the scale, writes the weights and returns the recipe.
    """

    name: str
    write: Callable[[Path, Scale], dict[str, Any]]


def write_subject(subject: Subject, folder: Path, scale: Scale, target: str) -> Recipe:
    """Write weights and recipe into ``folder`` and read the recipe."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    data = subject.write(folder, scale)
    data |= {"target": target, "parity": {"cases": 4, "budget": "60s"}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return load_recipe(path, allow_code=True)


def _digits(folder: Path, scale: Scale) -> dict[str, Any]:
    recipe = FAMILIES["linear ensemble"].write(folder, 0, Size(1))
    return recipe | {"shapes": {"batch": [1, scale.batch, 4 * scale.batch]}}


def _pair(folder: Path, make: Callable[[], Any], more: dict[str, Any]) -> dict[str, Any]:
    for name in ("first", "second"):
        make().save_pretrained(folder / name)
    members = [{"checkpoint": name, **more} for name in ("first", "second")]
    return {"model": {"ensemble": {"combine": "linear", "members": members}}}


def _sizes(scale: Scale) -> dict[str, int]:
    return {
        "hidden_size": scale.width, "num_hidden_layers": scale.layers, "num_attention_heads": 4,
        "vocab_size": scale.vocabulary, "max_position_embeddings": 8 * scale.tokens,
        "intermediate_size": 4 * scale.width,
    }  # fmt: skip


def _encoders(folder: Path, scale: Scale) -> dict[str, Any]:
    import transformers as hf

    config = hf.BertConfig(**_sizes(scale), num_labels=5)
    recipe = _pair(folder, lambda: hf.BertForSequenceClassification(config), {})
    return recipe | {"shapes": _shapes(scale)}


def _decoders(folder: Path, scale: Scale) -> dict[str, Any]:
    import transformers as hf

    config = hf.LlamaConfig(**_sizes(scale), num_key_value_heads=2)
    recipe = _pair(folder, lambda: hf.LlamaForCausalLM(config), {"cache": True})
    past = {"past_sequence": [0, scale.tokens, 2 * scale.tokens]}
    return recipe | {"shapes": _shapes(scale) | past}


def _shapes(scale: Scale) -> dict[str, list[int]]:
    return {"batch": [1, scale.batch, scale.batch], "sequence": [1, scale.tokens, scale.tokens]}


def _experts(lowering: str) -> Callable[[Path, Scale], dict[str, Any]]:
    def write(folder: Path, scale: Scale) -> dict[str, Any]:
        import transformers as hf

        config = hf.MixtralConfig(
            **_sizes(scale), num_key_value_heads=2, num_local_experts=scale.experts,
            num_experts_per_tok=2,
        )  # fmt: skip
        hf.MixtralForCausalLM(config).save_pretrained(folder / "sparse")
        return {
            "model": {"checkpoint": "sparse"},
            "shapes": _shapes(scale),
            "export": {"experts": lowering},
        }

    return write


SUBJECTS = (
    Subject("digits ensemble", _digits),
    Subject("encoder ensemble", _encoders),
    Subject("decoder ensemble", _decoders),
    *(Subject(f"experts, {lowering}", _experts(lowering)) for lowering in LOWERINGS),
)
