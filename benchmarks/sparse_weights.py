"""What 2:4 and 1:4 cost the digits members, by each criterion and after distillation."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from benchmarks.rows import Row
from toolkit.pipeline import SparseOptions, SparseSource, distil, plan_distillation, sparsify
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

__all__ = ["run"]

SAMPLES = Path(__file__).parent.parent / "samples"
LOST = 0.01  # of accuracy, at 2:4 after recovery
RECIPE = """
model:
  distill:
    student: {{factory: "digits_models:{member}", weights: {sparse}}}
    teachers:
      {{factory: "digits_models:{member}", weights: weights/{member}.safetensors, name: dense}}
    data: {{path: seen.npz}}
    training: {{epochs: {epochs}, batch: 32, rate: 0.001, device: cpu, keep_zeros: true}}
inputs: {{image: {{type: "float32[batch, 1, 8, 8]", low: 0, high: 1}}}}
shapes: {{batch: [1, 16, 64]}}
"""


@dataclass(frozen=True)
class Trained:
    """The members on disk, and digits that none of them saw."""

    folder: Path
    held: object
    epochs: int


def run(*, quick: bool) -> list[Row]:
    """The two members that are made of linear layers; all of them are pruned, heads too."""
    sys.path.insert(0, str(SAMPLES))
    train = importlib.import_module("digits_train")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SAMPLES / "recipes" / "digits_models.py", folder)
        models, held = train.train_all(0, 3 if quick else train.EPOCHS)
        train.save(models, held, folder / "weights")
        seen, _ = train.split(0)
        np.savez(folder / "seen.npz", image=seen.image.numpy(), label=seen.label.numpy())
        trained = Trained(folder, held, 2 if quick else 40)
        return [
            row
            for member in ("mlp", "attention")
            for pattern in ("2:4", "1:4")
            for row in _rows(trained, member, pattern, bounded=pattern == "2:4" and not quick)
        ]


def _rows(trained: Trained, member: str, pattern: str, *, bounded: bool) -> list[Row]:
    folder, rows, title = trained.folder, [], f"{member}, {pattern}"
    source = SparseSource(
        folder / f"weights/{member}.safetensors", f"digits_models:{member}", folder
    )
    out = folder / "none"
    for method in ("magnitude", "wanda", "second-order"):
        out = folder / f"{member}{pattern[0]}{method}.safetensors"
        options = SparseOptions(
            Pattern.parse(pattern), method, folder / "seen.npz", folder / "weights/heldout.npz",
            skip=("position",),
        )  # fmt: skip
        quality = sparsify(source, out, options).quality
        assert quality is not None
        if not rows:
            rows.append(Row(f"{title}: accuracy, dense", quality.before, ""))
        rows.append(Row(f"{title}: accuracy lost, {method}", quality.before - quality.after, ""))
    lost = rows[0].value - _recovered(trained, member, out)
    bound = LOST if bounded else None
    rows.append(Row(f"{title}: accuracy lost, second-order and distilled", lost, "", bound=bound))
    return rows


def _recovered(trained: Trained, member: str, sparse: Path) -> float:
    """Accuracy after the dense model taught the sparse one, whose zeros stay."""
    folder = trained.folder
    path, out = folder / "recover.yaml", sparse.with_suffix(".recovered")
    path.write_text(RECIPE.format(member=member, sparse=sparse.name, epochs=trained.epochs))
    recipe = load_recipe(path, allow_code=True)
    planned = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
    distil(planned, out, work=sparse.with_suffix(".work"))
    weights = load_file(next(out.glob("*.safetensors")))
    before = load_file(sparse)
    assert all((weights[name][tensor == 0] == 0).all() for name, tensor in before.items()
               if tensor.dim() == 2 and name != "position")  # fmt: skip
    model = getattr(importlib.import_module("digits_models"), member)()
    model.load_state_dict(weights)
    held = trained.held
    return held.accuracy(model.eval()(held.image))  # type: ignore[attr-defined]
