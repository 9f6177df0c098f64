"""One tiny model of every family that the toolkit exports, on disk with its recipe.

Weights are random, but none is left at a value that hides a fault: biases are not zero, norms are
not one, and attention is far from uniform.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from toolkit.pipeline import Plan, make_plan
from toolkit.recipe import load_recipe

__all__ = ["FAMILIES", "Family", "Size", "write_family"]

DIGITS = Path(__file__).parents[1] / "samples" / "recipes" / "digits_models.py"
_SHAPES = {"batch": [1, 2, 4], "sequence": [1, 6, 12]}


@dataclass(frozen=True)
class Size:
    """How large a model is; what a family has no use for, it ignores."""

    layers: int
    width: int = 24


@dataclass(frozen=True)
class Family:
    """How one kind of model is written.

    Attributes:
        name: What tables call it.
        write: Given a folder, a seed and the sizes, writes the weights and returns the recipe.
        layers: Layers of the model that faults are planted in.
    """

    name: str
    write: Callable[[Path, int, Size], dict[str, Any]]
    layers: int = 2


def write_family(family: Family, folder: Path, seed: int, size: Size | None = None) -> Plan:
    """Write weights and recipe into ``folder`` and resolve them.

    Args:
        family: What to write.
        folder: An empty folder.
        seed: Of the weights and of the cases of the proof.
        size: Of the model; 24 wide with the family's number of layers if None.
    """
    torch.manual_seed(seed)
    recipe = family.write(folder, seed, size or Size(family.layers))
    recipe |= {"target": "onnx", "parity": {"cases": 8, "seed": seed}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return make_plan(load_recipe(path, allow_code=True), folder)


def _ensemble(combine: str) -> Callable[[Path, int, Size], dict[str, Any]]:
    def write(folder: Path, seed: int, size: Size) -> dict[str, Any]:
        from samples.recipes import digits_models

        del seed, size
        shutil.copy(DIGITS, folder / "bench_digits.py")
        names = ("cnn", "mlp", "attention")
        for name in names:
            module = _telling(getattr(digits_models, name)(), scale=1.5)
            save_file(module.state_dict(), folder / f"{name}.safetensors")
        members = [
            {"factory": f"bench_digits:{name}", "weights": f"{name}.safetensors"} for name in names
        ]
        ensemble = {"combine": combine, "output": "logits", "weights": [0.5, 0.3, 0.2]}
        image = {"type": "float32[batch, 1, 8, 8]", "low": 0, "high": 1}
        return {
            "model": {"ensemble": {**ensemble, "members": members}},
            "inputs": {"image": image},
            "shapes": {"batch": [1, 3, 6]},
        }

    return write


def _encoder(folder: Path, seed: int, size: Size) -> dict[str, Any]:
    import transformers as hf

    del seed
    config = hf.BertConfig(**_sizes(size), intermediate_size=48, num_labels=5)
    _save(hf.BertForSequenceClassification(config), folder / "model")
    return {"model": {"checkpoint": "model"}, "shapes": _SHAPES}


def _decoder(folder: Path, seed: int, size: Size) -> dict[str, Any]:
    del seed
    _save(_llama(size), folder / "model")
    shapes = {"batch": [1, 2, 3], "sequence": [1, 4, 8], "past_sequence": [0, 5, 10]}
    return {"model": {"checkpoint": "model", "cache": True}, "shapes": shapes}


def _half_decoder(folder: Path, seed: int, size: Size) -> dict[str, Any]:
    del seed
    _save(_llama(size), folder / "model")
    return {
        "model": {"checkpoint": "model"},
        "shapes": _SHAPES,
        "export": {"precision": "float16"},
    }


def _moe(folder: Path, seed: int, size: Size) -> dict[str, Any]:
    del seed
    kwargs = {
        "vocabulary": 61,
        "width": size.width,
        "layers": size.layers,
        "experts": 4,
        "top_k": 2,
    }
    shutil.copy(Path(__file__).with_name("moe_model.py"), folder / "bench_moe.py")
    from benchmarks.moe_model import moe_decoder

    save_file(_telling(moe_decoder(**kwargs)).state_dict(), folder / "moe.safetensors")
    factory = {"factory": "bench_moe:moe_decoder", "weights": "moe.safetensors", "kwargs": kwargs}
    ids = {"type": "int64[batch, sequence]", "low": 0, "high": 61}
    return {"model": factory, "inputs": {"input_ids": ids}, "shapes": _SHAPES}


def _merged(folder: Path, seed: int, size: Size) -> dict[str, Any]:
    """The mean of two checkpoints of one architecture (Wortsman et al. 2022)."""
    import transformers as hf

    config = hf.GPT2Config(
        n_embd=size.width, n_layer=size.layers, n_head=4, vocab_size=61, n_positions=24
    )
    for name, drawn in (("one", seed), ("two", seed + 1)):
        torch.manual_seed(drawn)
        _save(hf.GPT2LMHeadModel(config), folder / name)
    shutil.copytree(folder / "one", folder / "model")
    one, two = (load_file(folder / name / "model.safetensors") for name in ("one", "two"))
    merged = {name: torch.lerp(tensor, two[name], 0.4) for name, tensor in one.items()}
    save_file(merged, folder / "model" / "model.safetensors", {"format": "pt"})
    return {"model": {"checkpoint": "model"}, "shapes": _SHAPES}


def _sizes(size: Size) -> dict[str, int]:
    widths = {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": 4}
    return {**widths, "vocab_size": 61, "max_position_embeddings": 24}


def _llama(size: Size) -> nn.Module:
    import transformers as hf

    config = hf.LlamaConfig(**_sizes(size), intermediate_size=40, num_key_value_heads=2)
    model: nn.Module = hf.LlamaForCausalLM(config)
    return model


def _save(model: Any, folder: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    drawn: Any = _telling(model)
    drawn.save_pretrained(folder)


def _telling(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """Draw every parameter anew: matrices keep the size of what they multiply."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() == 1 and name.endswith("weight"):  # a norm
                weight.normal_(1.0, 0.2)
            elif weight.dim() == 1:
                weight.normal_(0.0, 0.2)
            else:
                weight.normal_(0.0, scale / (weight.numel() / len(weight)) ** 0.5)
    return module


FAMILIES = {
    family.name: family
    for family in (
        Family("linear ensemble", _ensemble("linear")),
        Family("log-linear ensemble", _ensemble("log_linear")),
        Family("encoder", _encoder),
        Family("decoder with cache", _decoder, layers=4),
        Family("mixture of experts", _moe),
        Family("merged model", _merged),
        Family("float16 decoder", _half_decoder, layers=8),
    )
}
