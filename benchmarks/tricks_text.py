"""Merge, distil, ensemble, experts, 2:4 and int8 on text: what is trained and shipped."""

from __future__ import annotations

import copy
import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.text_folders import WINDOW, write_model, write_passages
from benchmarks.tricks import Judge, export
from toolkit.pipeline import SparseOptions, SparseSource, distil, plan_distillation, sparsify
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

__all__ = ["ship"]

SAMPLES = Path(__file__).parent.parent / "samples"
NAMES = ("a", "b", "c")
SHAPES = """
shapes: {batch: [1, 4, 8], sequence: [1, 32, 128]}
parity: {cases: 2}
"""
REAL = """
shapes: {batch: [1, 4, 8], sequence: [1, 32, 128]}
parity: {cases: 2, inputs: calibration.npz}
export: {precision: int8, calibration: calibration.npz}
"""


def ship(folder: Path, *, quick: bool) -> tuple[dict[str, Path], Judge]:
    """Train three small Llamas from one beginning; a graph of every way to ship them."""
    sys.path.insert(0, str(SAMPLES))
    text = importlib.import_module("text_train")
    text.logging.disable_progress_bar()
    held = _train(text, folder, steps=4 if quick else text.STEPS // 2)
    windows = held[: (len(held) - 1) // WINDOW * WINDOW].view(-1, WINDOW).numpy()

    def perplexity(call: Any) -> float:
        total = 0.0
        for rows in np.array_split(windows, -(-len(windows) // 8)):
            logits = call({"input_ids": rows, "attention_mask": np.ones_like(rows)})
            total += float(
                torch.nn.functional.cross_entropy(
                    torch.from_numpy(logits[:, :-1]).flatten(0, 1),
                    torch.from_numpy(rows[:, 1:]).flatten(),
                    reduction="sum",
                )
            )
        return float(np.exp(total / windows[:, 1:].size))

    feeds = {"input_ids": windows[:1], "attention_mask": np.ones_like(windows[:1])}
    judge = Judge("perplexity, lower is better", perplexity, feeds, "128 tokens")
    return dict(_exported(folder, steps=2 if quick else 150)), judge


def _train(text: Any, folder: Path, steps: int) -> torch.Tensor:
    """Writes a base and its fine-tunes a, b, c, each on six tenths of the passages; test tokens."""
    documents = text.split(0)
    tokenizer = text.tokenizer_of(documents.train)
    stream = text.stream_of(tokenizer, documents.train)
    base = text.train("llama", stream, 0, steps)
    text.MEMBERS["tuned"] = lambda: copy.deepcopy(base)
    draw = random.Random(0)
    models = {"base": base}
    for seed, name in enumerate(NAMES, start=1):
        own = draw.sample(documents.train, round(0.6 * len(documents.train)))
        models[name] = text.train("tuned", text.stream_of(tokenizer, own), seed, steps)
    for name, model in models.items():
        write_model(text, model, tokenizer, folder / name)
    rows = write_passages(documents.train, stream, folder).numpy()
    np.savez(folder / "calibration.npz", input_ids=rows, attention_mask=np.ones_like(rows))
    held: torch.Tensor = text.stream_of(tokenizer, documents.test)
    return held


def _exported(folder: Path, steps: int) -> Iterator[tuple[str, Path]]:
    members = ", ".join(f"{{checkpoint: {name}}}" for name in NAMES)
    three = f"{{ensemble: {{combine: linear, members: [{members}]}}}}"
    models = ", ".join(f"{{model: {name}, parameters: {{weight: 1}}}}" for name in NAMES)
    merge = f"{{merge: {{merge_method: linear, models: [{models}]}}}}"
    yield "one of three", _ship(folder, "one", "{checkpoint: a}")
    yield "merged (average)", _ship(folder, "merged", merge)
    yield "ensemble of three", _ship(folder, "ensemble", three)
    _distil(folder, "student", "base", three, steps)
    yield "ensemble, distilled into one", _ship(folder, "student", "{checkpoint: student}")
    yield "mixture, 2 of 3 experts", _ship(folder, "mixture", _mixture())
    options = SparseOptions(Pattern(2, 4), "second-order", folder / "calibration.jsonl")
    sparsify(SparseSource(folder / "a"), folder / "sparse", options)
    yield "one, 2:4", _ship(folder, "two_four", "{checkpoint: sparse}")
    _distil(folder, "recovered", "sparse", "{checkpoint: a}", steps, keep=True)
    yield "one, 2:4, distilled", _ship(folder, "recovered", "{checkpoint: recovered}")
    yield "one, int8", _ship(folder, "one_int8", "{checkpoint: a}", REAL)
    yield "ensemble, int8", _ship(folder, "ensemble_int8", three, REAL)


def _mixture() -> str:
    """Their feed-forward networks as experts; nobody trains the gate."""
    experts = ", ".join(f"{{source_model: {name}}}" for name in NAMES)
    return (
        f"{{moe: {{base_model: a, gate_mode: random, experts_per_token: 2, experts: [{experts}]}}}}"
    )


def _distil(  # noqa: PLR0913, PLR0917  (what goes in and what comes out)
    folder: Path, out: str, student: str, teachers: str, steps: int, keep: bool = False
) -> None:
    path = folder / f"{out}_distil.yaml"
    training = f"{{steps: {steps}, batch: 16, rate: 0.001, device: cpu, keep_zeros: {keep}}}"
    path.write_text(f"""
model:
  distill:
    student: {{checkpoint: {student}}}
    teachers: {teachers}
    data: {{path: train.jsonl, length: {WINDOW}}}
    training: {training}
  task: causal-lm
""")
    recipe = load_recipe(path)
    planned = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
    distil(planned, folder / out, work=folder / f"{out}_work")


def _ship(folder: Path, name: str, model: str, rest: str = SHAPES) -> Path:
    return export(folder, f"{name}_graph", f"model: {model}\n{rest}\n")
