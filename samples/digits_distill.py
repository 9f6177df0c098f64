"""Three digit classifiers taught to one student of a tenth of their size.

    python samples/digits_distill.py              # seeds 0 to 4, a few minutes; prints the table
    python samples/digits_distill.py --seeds 1    # one seed

Of scikit-learn's 1,797 digits, 500 with labels train the teachers (``digits_train.py``) and are
gone afterwards, as somebody else's training data are. The student's owner has 650 others, 150 of
them with labels; 647 are for measuring. On labels alone a student learns from the 150. What
teachers say needs no labels, so a distilled one learns from all 650. The last row is what those
labels would have been worth that only the teachers saw. All students make as many steps of the
same size from the same start. The settings were chosen on seeds 100 to 103.

*Sequence level* of one word is the word that the ensemble thinks likeliest: its choice as label.

The last line exports the student of the last seed, which is one command for any recipe with
``model: {distill: …}``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from digits_train import (
    EPOCHS,
    MEMBERS,
    RECIPES,
    Digits,
    digits_ensembles,
    digits_models,
    split,
    train_all,
)
from distill_table import table
from safetensors.torch import load_file, save_file
from torch import nn

from toolkit.pipeline import distil, export_recipe, plan_distillation
from toolkit.recipe import Recipe, load_recipe

LABELLED, OWN = 150, 650
TRAINING = {"steps": 600, "batch": 32, "rate": 5e-3, "warmup": 0.0, "device": "cpu"}
ALONE = "student on labels alone"


def recipe_of(teachers: list[str], rows: str, objective: Mapping[str, Any]) -> dict[str, Any]:
    """A student of some teachers on some rows."""
    members = [
        {"factory": f"digits_models:{name}", "weights": f"{name}.safetensors", "name": name}
        for name in teachers
    ]
    distill = {
        "student": {"factory": "digits_models:slim"},
        "teachers": {"ensemble": {"combine": "linear", "members": members}},
        "data": {"path": rows, "share": 0},
        "objective": dict(objective),
        "training": TRAINING,
    }
    return {
        "model": {"distill": distill},
        "inputs": {"image": "float32[batch, 1, 8, 8]"},
        "shapes": {"batch": [1, 16, 64]},
        "parity": {"cases": 4},
    }


def load(folder: Path, recipe: Mapping[str, Any], seed: int) -> Recipe:
    """The recipe as a file beside the teachers, read as any other."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "seed": seed}), encoding="utf-8")
    return load_recipe(path, allow_code=True)


def student(folder: Path, recipe: Mapping[str, Any], seed: int) -> nn.Module:
    """Train the student of a recipe."""
    loaded = load(folder, recipe, seed)
    what = plan_distillation(loaded.model, loaded, folder, loaded.input_specs())
    with tempfile.TemporaryDirectory() as name:
        distil(what, Path(name) / "out", work=Path(name) / "work")
        module = digits_models.slim()
        module.load_state_dict(load_file(Path(name) / "out" / "model.safetensors"))
    return module.eval()


def prepare(folder: Path, seed: int) -> tuple[dict[str, nn.Module], Digits]:
    """Teachers and rows as files; the teachers themselves and the digits to measure with."""
    teachers, rest = train_all(seed, EPOCHS)
    for name, module in teachers.items():
        save_file(module.state_dict(), folder / f"{name}.safetensors")
    (folder / "digits_models.py").write_bytes((RECIPES / "digits_models.py").read_bytes())
    own = rest.image[:OWN]
    with torch.no_grad():
        choices = ensemble(teachers, own).argmax(-1)
    theirs, _ = split(seed)
    _save(folder / "labelled.npz", own[:LABELLED], rest.label[:LABELLED])
    _save(folder / "chosen.npz", own, choices)
    _save(folder / "theirs.npz", theirs.image, theirs.label)
    np.savez(folder / "own.npz", image=own.numpy())
    return teachers, Digits(rest.image[OWN:], rest.label[OWN:])


def _save(path: Path, image: torch.Tensor, label: torch.Tensor) -> None:
    np.savez(path, image=image.numpy(), labels=label.numpy())


def ensemble(teachers: Mapping[str, nn.Module], image: torch.Tensor) -> torch.Tensor:
    """Log probabilities of the mixture of all teachers."""
    return digits_ensembles.linear([teacher(image) for teacher in teachers.values()])


def measure(folder: Path, seed: int) -> dict[str, float]:
    """Per cent right of teachers and students."""
    teachers, test = prepare(folder, seed)
    names = list(MEMBERS)
    students = {
        ALONE: recipe_of(names, "labelled.npz", {"hard": 1}),
        "student of one teacher": recipe_of(["attention"], "own.npz", {}),
        "student of the ensemble, sequence level": recipe_of(names, "chosen.npz", {"hard": 1}),
        "student of the ensemble, word level": recipe_of(names, "own.npz", {}),
        "student on the teachers' labels": recipe_of(names, "theirs.npz", {"hard": 1}),
    }
    with torch.no_grad():
        found = {
            "best teacher": max(test.accuracy(t(test.image)) for t in teachers.values()),
            "ensemble": test.accuracy(ensemble(teachers, test.image)),
        }
    for name, recipe in students.items():
        module = student(folder, recipe, seed)
        with torch.no_grad():
            found[name] = test.accuracy(module(test.image))
    return {name: 100 * value for name, value in found.items()}


def ship(folder: Path, seed: int) -> str:
    """Export the student of the ensemble; what was proven, and its size."""
    recipe = load(folder, recipe_of(list(MEMBERS), "own.npz", {}), seed)
    outcome = export_recipe(recipe, folder, folder / "bundle")
    sizes = [sum(p.numel() for p in make().parameters()) for make in MEMBERS.values()]
    own = sum(p.numel() for p in digits_models.slim().parameters())
    verdict = "passed" if outcome.report.passed else "FAILED"
    return (
        f"student {own:,} parameters, teachers {sum(sizes):,} together ({own / sum(sizes):.1%}); "
        f"exported, parity {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil digit classifiers.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1")
    parser.add_argument("--first", type=int, default=0, help="in place of seed 0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[float]] = {}
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name), seed)
            for title, value in found.items():
                rows.setdefault(title, []).append(value)
            print(
                f"seed {seed}: " + "  ".join(f"{t} {v:.2f}" for t, v in found.items()), flush=True
            )
            shipped = ship(Path(name), seed) if seed == options.first + options.seeds - 1 else ""
    if options.seeds > 1:
        print("\n" + table(rows, ALONE, "right, %") + "\n")
    print(shipped)


if __name__ == "__main__":
    main()
