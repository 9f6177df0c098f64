"""Training from kept targets against training with the teachers in memory: time, memory, loss."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import peak_memory, ratio, spread
from benchmarks.rows import Row
from toolkit.pipeline import DistilReport, distil, plan_distillation
from toolkit.recipe import load_recipe

__all__ = ["measure", "run"]

TEACHERS, LENGTH, BATCH = 3, 64, 8
# A step from the cache over one with live teachers; memory beyond a run on labels alone (the
# buckets' own temporary tensors) over what the teachers' weights take.
SLOWER, MEMORY = 1.0, 0.25


def run(*, quick: bool) -> list[Row]:
    """Three Llama-like teachers and a student of a tenth of one."""
    sizes = {"vocab_size": 1000, "hidden_size": 384, "layers": 3} if quick else {
        "vocab_size": 4000, "hidden_size": 768, "layers": 4}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return measure(sizes, Path(folder), steps=3 if quick else 8, repeats=3 if quick else 5)


def measure(sizes: Mapping[str, int], folder: Path, steps: int, repeats: int) -> list[Row]:
    """Time both in turns in this process, and the peak of each in processes of their own."""
    weights = _write(sizes, folder, steps)
    kept = folder / "kept"
    first = _distil(folder, "{}", kept)  # writes the cache
    live: list[DistilReport] = []
    cached: list[DistilReport] = []
    for _ in range(repeats):
        live.append(_distil(folder, "{}", None))
        cached.append(_distil(folder, "{}", kept))
    seconds = [[r.training.seconds / r.training.steps for r in runs] for runs in (live, cached)]
    effect = first.effect
    assert effect is not None
    losses = [runs[0].training.losses[0] for runs in (live, cached)]
    title = f"{TEACHERS} teachers, {weights / 1e6:.0f} MB"
    step = [statistics.median(one) * 1e3 for one in seconds]
    rows = [
        Row.of(f"{title}: step from the cache / with live teachers",
               ratio(seconds[1], seconds[0]), SLOWER),
        Row("step from the cache", step[1], "ms", spread(seconds[1], 1e3)),
        Row("step with live teachers", step[0], "ms", spread(seconds[0], 1e3)),
        Row("first step: loss with whole targets - with kept ones", losses[0] - losses[1], "nats",
            beside={"printed": effect.gap}),
    ]  # fmt: skip
    return [*rows, *_memory(folder, kept, weights)]


def _memory(folder: Path, kept: Path, weights: int) -> list[Row]:
    """Peaks beyond that of a run on labels alone, over what the teachers' weights take."""
    runs = {"labels": ("{hard: 1}", []), "cache": ("{}", ["--cache", str(kept)]),
            "live": ("{}", [])}  # fmt: skip
    peaks = {}
    for name, (objective, more) in runs.items():
        path = _recipe(folder, objective)
        command = [sys.executable, "-m", "toolkit", "distill", str(path), str(folder / name), *more]
        done = peak_memory(command, str(folder / "log"))
        if done.code:
            raise RuntimeError((folder / "log").read_text())
        peaks[name] = done.peak
    shares = {name: (peaks[name] - peaks["labels"]) / weights for name in ("cache", "live")}
    return [
        Row("peak from the cache beyond labels alone / teachers", shares["cache"], "x",
            bound=MEMORY, beside={"live": shares["live"]}),
        Row("peak on labels alone", peaks["labels"] / 1e6, "MB"),
    ]  # fmt: skip


def _distil(folder: Path, objective: str, cache: Path | None) -> DistilReport:
    recipe = load_recipe(_recipe(folder, objective))
    what = plan_distillation(recipe.model, recipe, folder, ())
    with tempfile.TemporaryDirectory() as name:
        made = distil(what, Path(name) / "out", work=Path(name) / "work", cache=cache)
    assert made is not None
    return made


def _recipe(folder: Path, objective: str) -> Path:
    path = folder / "recipe.yaml"
    known: dict[str, Any] = yaml.safe_load((folder / "base.yaml").read_text())
    known["model"]["distill"]["objective"] = yaml.safe_load(objective)
    path.write_text(yaml.safe_dump(known), encoding="utf-8")
    return path


def _write(sizes: Mapping[str, int], folder: Path, steps: int) -> int:
    """Teachers, rows and a recipe; the bytes of the teachers' weights."""
    width, vocabulary = sizes["hidden_size"], sizes["vocab_size"]
    shared = {"vocab_size": vocabulary, "num_attention_heads": 4, "num_key_value_heads": 4,
              "max_position_embeddings": LENGTH}  # fmt: skip
    for number in range(TEACHERS):
        torch.manual_seed(number)
        config = LlamaConfig(hidden_size=width, intermediate_size=2 * width,
                             num_hidden_layers=sizes["layers"], initializer_range=0.1,
                             **shared)  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / f"teacher{number}")
    ids = np.random.default_rng(0).integers(vocabulary, size=(BATCH * steps, LENGTH))
    np.savez(folder / "rows.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=ids)
    members = [{"checkpoint": f"teacher{number}"} for number in range(TEACHERS)]
    student = {**shared, "model_type": "llama", "hidden_size": width // 8,
               "intermediate_size": width // 4, "num_hidden_layers": 2}  # fmt: skip
    distill = {
        "student": {"config": student},
        "teachers": {"ensemble": {"combine": "linear", "members": members}},
        "data": {"path": "rows.npz", "share": 0},
        "training": {"epochs": 1, "batch": BATCH, "device": "cpu"},
        "cache": {"top_k": 64},
    }
    recipe = {"model": {"distill": distill, "task": "causal-lm"}}
    (folder / "base.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return sum(p.stat().st_size for p in folder.glob("teacher*/*.safetensors"))
