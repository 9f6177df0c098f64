"""Three small language models taught to one student of a tenth of their size.

    python samples/text_train.py        # trains the teachers, a few minutes
    python samples/text_distill.py      # students of seeds 0 to 4, some minutes; prints the table

Teachers are those of ``text_train.py``, on the text of Python's manual. Students learn from 24 of
the passages that teachers were trained on (each teacher saw six tenths of those), are judged while
they learn on passages that nobody saw, and are measured on others again. All make as many steps,
and of each the weights that judge best are kept.

What teachers say is kept once for all seeds (``cache``, 64 classes of a position), so no teacher
runs while students learn. At *sequence level* the ensemble goes on with the first 16 tokens of
every block by beam search, and students learn its words as if they were the text.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from distill_table import table
from text_train import MEMBERS, WEIGHTS, perplexity, split, stream_of
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from toolkit.pipeline import distil, plan_distillation
from toolkit.recipe import load_recipe

PASSAGES, LENGTH = 24, 64
BEST = "qwen"
STUDENT = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
TRAINING = {
    "steps": 240, "batch": 8, "rate": 5e-3, "weight_decay": 0.1, "evaluate": 120, "device": "cpu",
}  # fmt: skip
ALONE = "student on the text alone"
STUDENTS: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    ALONE: (list(MEMBERS), {"hard": 1}),
    "student of one teacher": ([BEST], {}),
    "student of the ensemble, sequence level": (
        list(MEMBERS),
        {"level": "sequence", "beams": 2, "prompt": 16, "new_tokens": 24},
    ),
    "student of the ensemble, word level": (list(MEMBERS), {}),
}


def recipe_of(teachers: Sequence[str], objective: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A student of some teachers."""
    members = [{"checkpoint": name} for name in teachers]
    distill = {
        "student": {"config": STUDENT, "tokenizer": BEST},
        "teachers": {"ensemble": {"combine": "linear", "members": members}},
        "data": {"path": "student.jsonl", "held_out": "judge.jsonl", "length": LENGTH},
        "objective": dict(objective),
        "training": TRAINING,
        "cache": {"top_k": 64},
    }
    return {"model": {"distill": distill, "task": "causal-lm"}, "seed": seed}


def write_texts(folder: Path) -> list[str]:
    """The students' passages and those that judge, as files; those that measure."""
    text = split(0)
    for name, passages in (("student", text.train[:PASSAGES]), ("judge", text.fit)):
        lines = "".join(json.dumps({"text": passage}) + "\n" for passage in passages)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return text.test


def student(folder: Path, kept: Path, title: str, seed: int, stream: torch.Tensor) -> float:
    """Train a student; its perplexity on what nobody has seen."""
    teachers, objective = STUDENTS[title]
    path = folder / "distill.yaml"
    path.write_text(yaml.safe_dump(recipe_of(teachers, objective, seed)), encoding="utf-8")
    recipe = load_recipe(path)
    what = plan_distillation(recipe.model, recipe, folder, ())
    cache = kept / f"{len(teachers)} teachers"
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "student"
        made = distil(what, out, work=Path(name) / "work", cache=cache)
        if seed == 0:
            print(f"{title}: {made.parameters:,} parameters, kept of teachers: {made.effect}")
        return perplexity(AutoModelForCausalLM.from_pretrained(out).eval(), stream)


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil language models.")
    parser.add_argument("--members", type=Path, default=WEIGHTS, help="what text_train.py wrote")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1")
    options = parser.parse_args()
    root = options.members
    stream = stream_of(Tokenizer.from_file(str(root / BEST / "tokenizer.json")), write_texts(root))
    teachers = {}
    for name in MEMBERS:
        model = AutoModelForCausalLM.from_pretrained(root / name).eval()
        teachers[name] = sum(p.numel() for p in model.parameters())
        print(f"{name}: {teachers[name]:,} parameters, perplexity {perplexity(model, stream):.2f}")
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as kept:
        for seed in range(options.seeds):
            for title in STUDENTS:
                found = student(root, Path(kept), title, seed, stream)
                rows.setdefault(title, []).append(found)
                print(f"seed {seed}: {title}: perplexity {found:.2f}", flush=True)
    if options.seeds > 1:
        print("\n" + table(rows, ALONE, "perplexity"))


if __name__ == "__main__":
    main()
