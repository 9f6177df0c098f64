"""Small models on disk, made in milliseconds, for tests that run the real pipeline."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

CODE = '''
import torch
from torch import nn

def linear(features=6, classes=4):
    return Named(nn.Linear(features, classes))

def deep(features=6, classes=4):
    return Named(nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, classes)))

def two_inputs():
    return Two()

def sized():
    return Sized()

def not_a_module():
    return 3

class Named(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 4)
        self.right = nn.Linear(3, 4)

    def forward(self, x, extra):
        return self.left(x) + self.right(extra)

class Sized(nn.Module):
    """Branches on data, which cannot be exported."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 4)

    def forward(self, x):
        if x.sum() > 0:
            return self.inner(x)
        return -self.inner(x)
'''

SHAPES = {
    "linear": {"inner.weight": (4, 6), "inner.bias": (4,)},
    "deep": {
        "inner.0.weight": (5, 6),
        "inner.0.bias": (5,),
        "inner.2.weight": (4, 5),
        "inner.2.bias": (4,),
    },
    "two_inputs": {
        "left.weight": (4, 6),
        "left.bias": (4,),
        "right.weight": (4, 3),
        "right.bias": (4,),
    },
    "sized": {"inner.weight": (4, 6), "inner.bias": (4,)},
}


def weights(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded weights for a factory above."""
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(shape, generator=generator) for n, shape in SHAPES[kind].items()}


def write_workshop(folder: Path) -> Path:
    """Write ``shop.py`` and a weight file for every factory in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.py").write_text(CODE)
    for seed, kind in enumerate(SHAPES):
        save_file(weights(kind, seed), folder / f"{kind}.safetensors")
    return folder


RECIPE = """
model:
  ensemble:
    combine: linear
    weights: [0.25, 0.75]
    members:
      - {factory: "shop:linear", weights: linear.safetensors}
      - {factory: "shop:deep", weights: deep.safetensors}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 4}
"""


def write_recipe(folder: Path, text: str = RECIPE, name: str = "recipe.yaml") -> Path:
    """Write a recipe beside the workshop."""
    path = folder / name
    path.write_text(text)
    return path


def write_huggingface(folder: Path, kind: str, seed: int = 0, **changes: float) -> Path:
    """A tiny random model: bert, roberta, llama, qwen2, gpt2, sentence, t5, bart or marian."""
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {**small, "intermediate_size": 64, "vocab_size": 97, "max_position_embeddings": 40}
    torch.manual_seed(seed)
    gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    t5 = {"d_model": 32, "d_ff": 48, "d_kv": 12, "num_layers": 2, "num_decoder_layers": 3,
          "num_heads": 2, "vocab_size": 97, "decoder_start_token_id": 0}  # fmt: skip
    bart = {
        "d_model": 24,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40,
        "vocab_size": 97,
        "max_position_embeddings": 40,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": 3,
        "eos_token_id": 1,
        "forced_eos_token_id": None,
    }
    makers = {
        "bert": lambda: hf.BertForSequenceClassification(
            hf.BertConfig(**{**common, "num_labels": 3, **changes})
        ),
        "roberta": lambda: hf.RobertaForMaskedLM(
            hf.RobertaConfig(**{**common, "type_vocab_size": 1, **changes})
        ),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(**{**common, "num_key_value_heads": 2, **changes})
        ),
        "qwen2": lambda: hf.Qwen2ForCausalLM(
            hf.Qwen2Config(**{**common, "num_key_value_heads": 2, **changes})
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(**{**gpt2, "n_positions": 40, "vocab_size": 97, **changes})
        ),
        "sentence": lambda: hf.BertModel(hf.BertConfig(**{**common, **changes})),
        "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**{**t5, **changes})),
        "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**{**bart, **changes})),
        "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**{**bart, **changes})),
    }
    makers[kind]().save_pretrained(folder)
    return folder
