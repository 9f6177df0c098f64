"""The thresholds, held against nets that were really trained: siblings, and strangers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.errors import MergeError
from toolkit.merge import from_mapping, merge_modules
from toolkit.merge.memory import opened
from toolkit.merge.models import Library
from toolkit.merge.planning import make_plan
from toolkit.merge.relatedness import (
    DOUBTFUL,
    UNRELATED,
    check_related,
    median_cosine,
)

CLASSES, WIDTH, INPUTS, DEPTH = 8, 32, 24, 4


def samples(count: int, seed: int, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes of two clusters each, which no linear model separates."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(2 * CLASSES, INPUTS)) + shift
    cluster = rng.integers(0, 2 * CLASSES, count)
    points = centres[cluster] + 0.6 * rng.normal(size=(count, INPUTS))
    return torch.tensor(points, dtype=torch.float32), torch.tensor(cluster % CLASSES)


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    hidden = [nn.Linear(INPUTS, WIDTH), nn.ReLU()]
    for _ in range(DEPTH - 1):
        hidden += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))


def train(model: nn.Module, data, steps: int, rate: float, seed: int) -> nn.Module:
    points, labels = data
    optimizer = torch.optim.Adam(model.parameters(), rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = torch.randint(len(points), (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(points[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def fine_tune(base: nn.Module, seed: int) -> nn.Module:
    model = net(0)
    model.load_state_dict(base.state_dict())
    return train(model, samples(1500, 100 + seed, shift=0.1 * seed), 150, 1e-3, seed)


@pytest.fixture(scope="module")
def trained() -> dict[str, nn.Module]:
    torch.set_num_threads(1)
    data = samples(3000, 1)
    strangers = {f"stranger{s}": train(net(s), data, 300, 3e-3, s) for s in (1, 2, 3)}
    base = strangers["stranger1"]
    siblings = {f"sibling{s}": fine_tune(base, s) for s in (1, 2, 3)}
    return {**strangers, **siblings}


def accuracy(model: nn.Module) -> float:
    points, labels = samples(2000, 9)
    with torch.no_grad():
        return float((model(points).argmax(1) == labels).float().mean())


def soup(names):
    return {"merge_method": "uniform_soup", "models": [{"model": name} for name in names]}


def cosine(models, names):
    states = {name: models[name].state_dict() for name in names}
    found = median_cosine(make_plan(from_mapping(soup(names)), Library(known=opened(states))))
    assert found is not None
    return found[0]


def test_siblings_measure_above_the_thresholds_and_strangers_far_below(trained):
    pairs = list(itertools.combinations(sorted(trained), 2))
    related = [p for p in pairs if all("sibling" in n or n == "stranger1" for n in p)]
    unrelated = [p for p in pairs if p not in related]
    close = [cosine(trained, pair) for pair in related]
    apart = [cosine(trained, pair) for pair in unrelated]
    assert min(close) > 0.9 > DOUBTFUL
    assert max(apart) < 0.3 < UNRELATED
    assert len(related) == 6
    assert len(unrelated) == 9


def test_an_average_of_siblings_works_and_one_of_strangers_does_not(trained):
    siblings, strangers = ["sibling1", "sibling2", "sibling3"], ["stranger2", "stranger3"]
    members = [accuracy(trained[n]) for n in siblings + strangers]
    assert min(members) > 0.95
    assert accuracy(merge_modules(soup(siblings), {n: trained[n] for n in siblings})) > 0.95
    forced = merge_modules(soup(strangers), {n: trained[n] for n in strangers}, force=True)
    assert accuracy(forced) < 0.6


def test_strangers_are_refused_with_the_reason(trained):
    names = ["stranger1", "stranger2"]
    with pytest.raises(MergeError, match=r"median cosine of -?0\.[0-2].* do not descend from one"):
        merge_modules(soup(names), {n: trained[n] for n in names})


def test_models_in_doubt_are_merged_with_a_warning():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(64, 64))
    states = {n: {"x": base + 0.7 * rng.normal(size=base.shape)} for n in ("a", "b")}
    config = from_mapping(soup(["a", "b"]))
    warnings = check_related(make_plan(config, Library(known=opened(states))), force=False)
    assert len(warnings) == 1
    assert "have a median cosine of 0.6" in warnings[0]


def test_models_without_matrices_are_not_judged():
    states = {"a": {"x": np.ones(3)}, "b": {"x": -np.ones(3)}}
    assert median_cosine(make_plan(from_mapping(soup("ab")), Library(known=opened(states)))) is None
