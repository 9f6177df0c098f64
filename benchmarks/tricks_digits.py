"""Merge, distil, ensemble, experts, 2:4 and int8 on the digits: what is trained and shipped."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.tricks import Judge, export
from toolkit.pipeline import SparseOptions, SparseSource, distil, plan_distillation, sparsify
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

__all__ = ["ship"]

SAMPLES = Path(__file__).parent.parent / "samples"
INPUTS = """
inputs: {image: {type: "float32[batch, 1, 8, 8]", low: 0, high: 1}}
shapes: {batch: [1, 16, 64]}
parity: {cases: 4}
"""
MEMBER = '{{factory: "digits_models:mlp", weights: {0}.safetensors, name: {0}}}'


def ship(folder: Path, *, quick: bool) -> tuple[dict[str, Path], Judge]:
    """Train three classifiers from one beginning; a graph of every way to ship them."""
    sys.path.insert(0, str(SAMPLES))
    train = importlib.import_module("digits_train")
    experts = importlib.import_module("digits_moe")
    for file in ("digits_models.py", "digits_moe_models.py"):
        shutil.copy(SAMPLES / "recipes" / file, folder)
    held = _train(train, folder, epochs=2 if quick else train.EPOCHS)
    seen, _ = train.split(0)
    model = experts.train(seen, 0, balanced=True, epochs=2 if quick else experts.EPOCHS)
    save_file(model.state_dict(), folder / "moe.safetensors")
    images, labels = held.image.numpy(), held.label.numpy()

    def accuracy(call: Any) -> float:
        parts = np.array_split(images, 32)
        said = np.concatenate([call({"image": part}).argmax(axis=1) for part in parts])
        return float(100 * (said == labels).mean())

    judge = Judge("accuracy, %", accuracy, {"image": images[:16]}, "16 digits")
    return dict(_exported(folder, epochs=2 if quick else 40)), judge


def _train(train: Any, folder: Path, epochs: int) -> Any:
    """Writes a, b and c, fine-tunes of one model on halves of the digits, and their average."""
    seen, held = train.split(0)
    base = train.train(train.MEMBERS["mlp"], seen, seed=0, epochs=epochs // 3 or 1)
    weights = {}
    for seed, name in enumerate("abc", start=1):
        rows = torch.randperm(len(seen.label), generator=torch.Generator().manual_seed(seed))[:350]
        part = train.Digits(seen.image[rows], seen.label[rows])
        start = partial(_copy, train.MEMBERS["mlp"], base.state_dict())
        weights[name] = train.train(start, part, seed=seed, epochs=epochs).state_dict()
        save_file(weights[name], folder / f"{name}.safetensors")
    average = {key: sum(w[key] for w in weights.values()) / 3 for key in weights["a"]}
    save_file(average, folder / "merged.safetensors")
    np.savez(folder / "seen.npz", image=seen.image.numpy(), label=seen.label.numpy())
    return held


def _copy(make: Callable[[], torch.nn.Module], weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = make()
    model.load_state_dict(weights)
    return model


def _exported(folder: Path, epochs: int) -> Iterator[tuple[str, Path]]:
    one = f"model: {MEMBER.format('a')}"
    members = ", ".join(MEMBER.format(name) for name in "abc")
    all_three = f"model: {{ensemble: {{combine: linear, members: [{members}]}}}}"
    yield "one of three", _ship(folder, "one", one)
    yield "merged (average)", _ship(folder, "merge", f"model: {MEMBER.format('merged')}")
    yield "ensemble of three", _ship(folder, "ensemble", all_three)
    student = _distilled(folder, members, epochs)
    yield "ensemble, distilled into one", _ship(folder, "student", f"model: {student}")
    mixture = 'model: {factory: "digits_moe_models:moe", weights: moe.safetensors}'
    yield "mixture, 2 of 8 experts", _ship(folder, "mixture", mixture)
    what = SparseSource(folder / "a.safetensors", "digits_models:mlp", folder)
    options = SparseOptions(Pattern(2, 4), "second-order", folder / "seen.npz")
    sparsify(what, folder / "sparse.safetensors", options)
    yield "one, 2:4", _ship(folder, "two_four", f"model: {MEMBER.format('sparse')}")
    int8 = "export: {precision: int8, calibration: seen.npz}"
    yield "one, int8", _ship(folder, "one_int8", f"{one}\n{int8}")
    yield "ensemble, int8", _ship(folder, "ensemble_int8", f"{all_three}\n{int8}")


def _distilled(folder: Path, members: str, epochs: int) -> str:
    path, out = folder / "distil.yaml", folder / "distilled"
    path.write_text(f"""
model:
  distill:
    student: {{factory: "digits_models:mlp", weights: merged.safetensors}}
    teachers: {{ensemble: {{combine: linear, members: [{members}]}}}}
    data: {{path: seen.npz}}
    training: {{epochs: {epochs}, batch: 32, rate: 0.001, device: cpu}}
{INPUTS}""")
    recipe = load_recipe(path, allow_code=True)
    planned = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
    distil(planned, out, work=folder / "work")
    shutil.copy(next(out.glob("*.safetensors")), folder / "student.safetensors")
    return MEMBER.format("student")


def _ship(folder: Path, name: str, text: str) -> Path:
    return export(folder, name, f"{text}\n{INPUTS}\n")
