"""Train three small language models of different architectures on the text of Python's manual.

    python samples/text_train.py              # writes samples/recipes/weights/text/

The text is what ``help()`` prints about the language itself, 465,000 characters that come with
Python (module ``pydoc_data.topics``; another version has other text and other figures), cut into
passages of some 4,000. A tenth of the passages is kept to fit weights and gates on, another tenth
to measure with. Each member sees six tenths of the others, drawn anew for each (bagging, Breiman
1996), so members know different things. One byte-level BPE vocabulary (Sennrich et al. 2016) of
1,024 tokens serves all three.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.utils import logging

WEIGHTS = Path(__file__).resolve().parent / "recipes" / "weights" / "text"
VOCABULARY = 1024
END = "<|end|>"
CONTEXT = 128
BATCH = 16
STEPS = 500
LEARNING_RATE = 3e-3
SHARE = 0.6
PASSAGE = 4000  # characters


def _gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=96,
            n_layer=3,
            n_head=4,
            n_positions=256,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **_tokens(),
        )
    )


def _llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, **_tokens(),
        )
    )  # fmt: skip


def _qwen() -> nn.Module:
    return Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=80, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=256, **_tokens(),
        )
    )  # fmt: skip


MEMBERS: dict[str, Callable[[], nn.Module]] = {"gpt2": _gpt2, "llama": _llama, "qwen": _qwen}


def _tokens() -> dict[str, Any]:
    """``<|end|>`` is the only special token, number 0."""
    return {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


@dataclass(frozen=True)
class Text:
    """Documents to train on, to fit weights and gates on, and to measure with."""

    train: list[str]
    fit: list[str]
    test: list[str]


def split(seed: int) -> Text:
    """The passages in a drawn order, in parts that have none in common."""
    found = [passage for name in sorted(topics) for passage in _passages(topics[name])]
    random.Random(seed).shuffle(found)
    tenth = len(found) // 10
    return Text(found[2 * tenth :], found[:tenth], found[tenth : 2 * tenth])


def _passages(topic: str) -> Iterator[str]:
    """Whole paragraphs, together as long as ``PASSAGE`` characters or a little more."""
    passage = ""
    for paragraph in topic.strip().split("\n\n"):
        passage = f"{passage}\n\n{paragraph}" if passage else paragraph
        if len(passage) >= PASSAGE:
            yield passage
            passage = ""
    if passage:
        yield passage


def tokenizer_of(documents: Sequence[str]) -> Tokenizer:
    """A byte-level BPE vocabulary learnt from the documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def train(name: str, stream: torch.Tensor, seed: int, steps: int) -> nn.Module:
    """A trained member; the same arguments give the same weights.

    Args:
        name: Of ``MEMBERS``.
        stream: Token ids [n].
        seed: Of the weights and of the windows.
        steps: Of Adam, with a cosine schedule after a warm-up of a twentieth.
    """
    torch.manual_seed(seed)
    model = MEMBERS[name]().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    for _ in range(steps):
        starts = torch.randint(len(stream) - CONTEXT - 1, (BATCH, 1))
        windows = stream[starts + torch.arange(CONTEXT + 1)]
        logits = model(input_ids=windows[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def stream_of(tokenizer: Tokenizer, documents: Sequence[str]) -> torch.Tensor:
    """Token ids of the documents one after the other, each behind ``<|end|>``."""
    ids = [token for document in documents for token in (0, *tokenizer.encode(document).ids)]
    return torch.tensor(ids)


@torch.no_grad()
def perplexity(model: nn.Module, stream: torch.Tensor) -> float:
    """Of windows of ``CONTEXT`` tokens that do not overlap."""
    count = (len(stream) - 1) // CONTEXT
    inputs = stream[: count * CONTEXT].view(count, CONTEXT)
    labels = stream[1 : count * CONTEXT + 1].view(count, CONTEXT)
    logits = model(input_ids=inputs).logits
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return math.exp(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the members of the text ensembles.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the weights")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write")
    options = parser.parse_args()
    logging.disable_progress_bar()
    text = split(options.seed)
    tokenizer = tokenizer_of(text.train)
    held_out = stream_of(tokenizer, text.test)
    draw = random.Random(options.seed)
    for index, name in enumerate(MEMBERS):
        own = draw.sample(text.train, round(SHARE * len(text.train)))
        model = train(name, stream_of(tokenizer, own), 1000 * options.seed + index, options.steps)
        model.save_pretrained(options.out / name)
        tokenizer.save(str(options.out / name / "tokenizer.json"))
        print(f"{name}: perplexity {perplexity(model, held_out):.2f} on passages it has not seen")
    for part in ("fit", "test"):
        documents = getattr(text, part)
        (options.out / f"{part}.txt").write_text("\n\n".join(documents), encoding="utf-8")


if __name__ == "__main__":
    main()
