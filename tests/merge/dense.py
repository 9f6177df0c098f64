"""Tiny dense language models and their fine-tunes, with a tokenizer of whole words."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WORDS = ("<s>", "</s>", "sum", "product", "proof", "rhyme", "verse", "story", "loop", "class", "x")
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 97, "max_position_embeddings": 40, "head_dim": 8,
    "initializer_range": 0.3,
}  # fmt: skip


def dense(folder: Path, kind: str, *, dtype: str = "float32", **changes: object) -> Path:
    """A random model of type llama, mistral, qwen2 or qwen3 with its tokenizer."""
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = hf.AutoConfig.for_model(kind, **{**SIZES, **changes})
    model = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # norms of one and biases of zero would hide where they come from
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="x"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def fine_tune(base: Path, folder: Path, seed: int, change: float = 0.3, only: str = "") -> Path:
    """The base with noise on every weight, or on those whose name holds ``only``."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    for name, value in load_file(base / "model.safetensors").items():
        noise = torch.randn(value.shape, generator=generator) * value.float().std()
        moved[name] = (value + change * noise).to(value.dtype) if only in name else value
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder: Path, dtype: torch.dtype | None = torch.float32) -> torch.nn.Module:
    """A folder in transformers, which must find every weight it wants and no other."""
    import transformers as hf

    model, report = hf.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    model.set_experts_implementation("eager")
    return model.eval()


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What transformers computes of a folder, eagerly and in float32."""
    with torch.inference_mode():
        return load(folder)(ids).logits
