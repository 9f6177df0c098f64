"""What 2:4 costs a small language model, by each criterion and after distillation."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.rows import Row
from benchmarks.text_folders import write_model, write_passages
from toolkit.pipeline import SparseOptions, SparseSource, distil, plan_distillation, sparsify
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

__all__ = ["run"]

SAMPLES = Path(__file__).parent.parent / "samples"
RECIPE = """
model:
  distill:
    student: {{checkpoint: second-order}}
    teachers: {{checkpoint: dense}}
    data: {{path: train.jsonl, length: 128}}
    objective: {{hard: 0.5}}
    training: {{steps: {steps}, batch: 16, rate: 0.001, device: cpu, keep_zeros: true}}
  task: causal-lm
"""


def run(*, quick: bool) -> list[Row]:
    """The Llama of the text sample, three layers of 96, on passages that it has not seen."""
    sys.path.insert(0, str(SAMPLES))
    text = importlib.import_module("text_train")
    text.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = _write(text, folder, steps=4 if quick else text.STEPS // 2)
        dense = text.perplexity(_load(folder / "dense"), held)
        rows = [Row("Llama of 3 x 96: perplexity, dense", dense, "")]
        for method in ("magnitude", "wanda", "second-order"):
            calibration = None if method == "magnitude" else folder / "calibration.jsonl"
            options = SparseOptions(Pattern(2, 4), method, calibration)
            sparsify(SparseSource(folder / "dense"), folder / method, options)
            found = text.perplexity(_load(folder / method), held)
            rows.append(Row(f"2:4: perplexity / dense, {method}", found / dense, "x"))
        path = folder / "recover.yaml"
        path.write_text(RECIPE.format(steps=2 if quick else text.STEPS // 5))
        recipe = load_recipe(path)
        planned = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
        distil(planned, folder / "recovered", work=folder / "work")
        found = text.perplexity(_load(folder / "recovered"), held)
        rows.append(Row("2:4: perplexity / dense, second-order and distilled", found / dense, "x"))
    return rows


def _write(text: object, folder: Path, steps: int) -> torch.Tensor:
    """The dense model, texts to learn from, tokens to calibrate on; gives those to measure with."""
    documents = text.split(0)  # type: ignore[attr-defined]
    tokenizer = text.tokenizer_of(documents.train)  # type: ignore[attr-defined]
    stream = text.stream_of(tokenizer, documents.train)  # type: ignore[attr-defined]
    model = text.train("llama", stream, 0, steps)  # type: ignore[attr-defined]
    write_model(text, model, tokenizer, folder / "dense")
    write_passages(documents.train, stream, folder)
    held: torch.Tensor = text.stream_of(tokenizer, documents.test)  # type: ignore[attr-defined]
    return held


def _load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()
