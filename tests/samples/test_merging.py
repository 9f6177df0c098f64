"""The merging sample: its configs merge, its soups hold up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.merge.models import save, weights
from toolkit.merge import MergeOptions, merge, plan
from toolkit.merge.config import load

CONFIGS = sorted((Path(__file__).parents[2] / "samples" / "recipes" / "merge").glob("*.yml"))


@pytest.fixture
def models(recipes: Path, tmp_path: Path) -> Path:
    import digits_models
    from safetensors.torch import save_file

    torch.manual_seed(0)
    base = digits_models.attention().state_dict()
    for name in ("base", "upside_down", "mirrored"):
        changed = {k: v + 0.05 * torch.randn_like(v) for k, v in base.items()}
        save_file(base if name == "base" else changed, tmp_path / f"{name}.safetensors")
    for seed, name in enumerate(("first", "second")):
        save(tmp_path / name, weights(seed, layers=4), num_hidden_layers=4)
    return tmp_path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_merges(models: Path, path: Path) -> None:
    options = MergeOptions(folder=models)
    made = plan(path, options)
    report = merge(path, models / "out", options)
    assert len(report.findings) == len(made.outputs) > 10
    assert report.warnings == ()


def test_there_is_a_config_for_every_family() -> None:
    methods = {config.merge_method for path in CONFIGS for config in load(path)}
    families = {"linear", "slerp", "karcher", "task_arithmetic", "ties", "dare_ties", "della",
                "breadcrumbs_ties", "model_stock", "sce", "nearswap", "arcee_fusion",
                "passthrough", "wise_ft"}  # fmt: skip
    assert families <= methods


def test_the_soups_of_the_sample_are_as_good_as_its_best_members(
    recipes: Path, tmp_path: Path
) -> None:
    import digits_merging

    torch.set_num_threads(1)
    found = digits_merging.data(0)
    base = digits_merging.train(found.train, 0, 3e-3, 10)
    scores = {name: score for name, _, score in digits_merging.soups(found, base, tmp_path)}
    members = [score for name, score in scores.items() if name.startswith("fine-tune")]
    assert scores["uniform soup"] > max(members) - 0.005
    assert scores["greedy soup"] > max(members) - 0.005
    assert scores["greedy soup"] > digits_merging.accuracy(base, found.test)
