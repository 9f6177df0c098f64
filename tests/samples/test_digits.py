"""The digits sample: members, training, ensembles and the demo's own verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml


@pytest.mark.parametrize("name", ["cnn", "mlp", "attention"])
def test_a_member_gives_ten_logits_for_any_batch(recipes: Path, name: str) -> None:
    import digits_models

    model = getattr(digits_models, name)().eval()
    for batch in (1, 3):
        assert model(torch.rand(batch, 1, 8, 8)).shape == (batch, 10)


def test_a_member_does_not_mix_the_images_of_a_batch(recipes: Path) -> None:
    import digits_train

    images = torch.rand(4, 1, 8, 8)
    for make in digits_train.MEMBERS.values():
        model = make().eval()
        one_by_one = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_the_split_is_stratified_scaled_and_disjoint(recipes: Path) -> None:
    import digits_train

    seen, held_out = digits_train.split(seed=0)
    assert len(seen.label) == 500
    assert len(held_out.label) == 1297
    assert seen.label.bincount().min() >= 45
    assert float(seen.image.min()) == 0
    assert float(seen.image.max()) == 1
    images = torch.cat([seen.image, held_out.image]).flatten(1)
    assert len(images.unique(dim=0)) == 1797


def test_training_twice_gives_the_same_weights_and_another_seed_others(recipes: Path) -> None:
    import digits_train

    seen, _ = digits_train.split(seed=0)
    for make in digits_train.MEMBERS.values():
        first, again, other = (
            digits_train.train(make, seen, seed=seed, epochs=1).state_dict() for seed in (1, 1, 2)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_writes_members_that_load_and_the_held_out_digits(
    recipes: Path, tmp_path: Path
) -> None:
    import digits_measure

    script = recipes.parent / "digits_train.py"
    command = [sys.executable, str(script), "--epochs", "4", "--out", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("seed 0: cnn ")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"cnn.safetensors", "mlp.safetensors", "attention.safetensors", "heldout.npz"}
    held_out = np.load(tmp_path / "heldout.npz")
    model = digits_measure.load_member("mlp", tmp_path)
    with torch.no_grad():
        predicted = model(torch.from_numpy(held_out["image"])).argmax(-1).numpy()
    assert (predicted == held_out["label"]).mean() > 0.5  # chance is 0.1


def test_the_ensembles_are_the_textbook_means(recipes: Path) -> None:
    import digits_ensembles

    first, second = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    logits = [torch.from_numpy(np.log(p)[None]) + 3 for p in (first, second)]
    mean = np.exp(digits_ensembles.linear(logits).numpy()[0])
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-12)
    product = np.exp(digits_ensembles.log_linear(logits).numpy()[0])
    expected = np.sqrt(first * second)
    np.testing.assert_allclose(product, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("name", ["digits_ensemble", "digits_ensemble_log_linear"])
def test_a_recipe_loads_and_names_the_members_of_the_script(recipes: Path, name: str) -> None:
    import digits_train

    from toolkit.recipe import load_recipe

    recipe = load_recipe(recipes / f"{name}.yaml", allow_code=True, check_files=False)
    members = recipe.model.ensemble.members
    assert [str(member.weights) for member in members] == [
        f"weights/digits/{member}.safetensors" for member in digits_train.MEMBERS
    ]


def test_the_recipes_differ_in_the_combination_only(recipes: Path) -> None:
    linear, log_linear = (
        yaml.safe_load((recipes / name).read_text(encoding="utf-8"))
        for name in ("digits_ensemble.yaml", "digits_ensemble_log_linear.yaml")
    )
    assert linear["model"]["ensemble"].pop("combine") == "linear"
    assert log_linear["model"]["ensemble"].pop("combine") == "log_linear"
    assert linear == log_linear
    assert linear["target"] == "tensorrt-rtx"


def figures_of(demo, shipped: list[int]):
    """Figures for three digits, of which the best member gets two right."""
    titles = [each.title for each in demo.ENSEMBLES]
    members = {name: np.array([1, 2, 0]) for name in demo.MEMBERS}
    return demo.Figures(
        label=np.array([1, 2, 3]),
        pytorch=members | dict.fromkeys(titles, np.array([1, 2, 3])),
        shipped=dict.fromkeys(titles, np.array(shipped)),
        times={name: [1.0, 2.0, 9.0] for name in [*members, *titles]},
        sizes=dict.fromkeys([*members, *titles], 5000),
    )


@pytest.fixture
def demo(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import digits_demo

    bundles = []
    for index, each in enumerate(digits_demo.ENSEMBLES):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"verdict": "passed"}))
        (folder / "model.plan").write_bytes(b"0" * 7000)
        bundles.append(replace(each, bundle=str(folder)))
    monkeypatch.setattr(digits_demo, "ENSEMBLES", tuple(bundles))
    return digits_demo


def test_the_demo_is_content_when_everything_holds(demo) -> None:
    assert list(demo.broken_promises(figures_of(demo, [1, 2, 3]))) == []


def test_the_demo_refuses_an_ensemble_that_does_not_help(demo) -> None:
    broken = list(demo.broken_promises(figures_of(demo, [1, 2, 0])))
    assert "the linear ensemble predicts 1 digits differently in ONNX and in PyTorch" in broken
    assert "the log-linear ensemble gets 2 digits right, its best member 2" in broken


def test_the_demo_refuses_a_failed_proof(demo) -> None:
    bundle = Path(demo.ENSEMBLES[0].bundle)
    (bundle / "manifest.json").write_text(json.dumps({"verdict": "failed"}))
    broken = list(demo.broken_promises(figures_of(demo, [1, 2, 3])))
    assert broken == [f"the linear ensemble failed its parity proof: {bundle}/report.html"]


def test_the_table_fits_a_plain_terminal_and_shows_every_figure(demo) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, quiet=False)
    with console.capture() as captured:
        console.print(demo.table(figures_of(demo, [1, 2, 3])))
    text = captured.get()
    assert "…" not in text
    for figure in ("66.67%", "100.00%", "passed", "5 kB", "7 kB", "2.000", "needs a GPU", "15 kB"):
        assert figure in text, figure
