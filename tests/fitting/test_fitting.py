"""Weights fitted to what members say: constants, gates, and the cache of members' outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError
from toolkit.fitting import (
    Batch,
    Objective,
    OutputCache,
    TrainingOptions,
    fit_constants,
    fit_gate,
    gate_scores,
    gather,
    label_log_probabilities,
    labelled_examples,
    score,
    text_examples,
    whole,
)
from toolkit.gates import features, last_token, tokens
from toolkit.runtime import GateRule, log_weights

LINEAR, PRODUCT = Objective("linear", "logits"), Objective("log_linear", "logits")


class Said:
    """A runner that says what it is told."""

    name, inputs = "said", ()

    def __init__(self, weight):
        self.weight, self.entered = weight, 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *error):
        pass

    def __call__(self, feeds):
        return {"logits": (feeds["x"] @ self.weight).astype(np.float32)}


def rows_of(logits, labels, **feeds):
    """One batch of rows from logits [M, n, V]."""
    batch = Batch(feeds, labels)
    logs = [[label_log_probabilities("logits")(member, batch)] for member in logits]
    return gather([batch], logs, [[member] for member in logits])


def problem(seed, count=400, classes=3):
    """Two members, each right where the first feature has its sign: a gate can tell them apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    right = np.eye(classes)[labels] * 4
    noise = rng.normal(size=(2, count, classes))
    first = (x[:, :1] > 0).astype(np.float64)
    logits = np.stack([first * right, (1 - first) * right]) + noise
    return x, logits, labels


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), combine=st.sampled_from(["linear", "log_linear"]))
def test_no_constants_are_better_than_the_fitted_ones(seed, combine):
    objective = Objective(combine, "logits")
    _, logits, labels = problem(seed, 60)
    rows = rows_of(logits, labels)
    found = fit_constants(objective, rows, 2)
    assert found.dtype == torch.float64
    assert (found >= 0).all()
    if combine == "linear":
        assert abs(float(found.sum()) - 1) < 1e-12

    def nll(weights):
        logs = weights.log().expand(len(labels), 2)
        return score(objective, rows, lambda _: logs).nll

    best = nll(found)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        other = torch.from_numpy(rng.dirichlet([1, 1]))
        if combine == "log_linear":
            other = other * rng.uniform(0, 3)
        assert nll(other) >= best - 1e-7


def test_a_useless_member_gets_no_weight():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    good = np.eye(3)[labels] * 2 + rng.normal(size=(300, 3))
    bad = rng.normal(size=(300, 3)) * 5
    assert fit_constants(LINEAR, rows_of([good, bad], labels), 2)[1] < 0.05
    assert fit_constants(PRODUCT, rows_of([good, bad], labels), 2)[1] < 0.1


def test_excluded_labels_cost_infinity_and_do_not_stop_the_fit():
    labels = np.zeros(4, np.int64)
    never, fine = np.tile([-np.inf, 0.0], (4, 1)), np.zeros((4, 2))
    rows = rows_of([never, fine], labels)
    assert fit_constants(LINEAR, rows, 2).tolist() == pytest.approx([0, 1], abs=1e-6)
    alone = torch.tensor([1.0, 0.0]).log().expand(4, 2)
    assert score(LINEAR, rows, lambda _: alone).nll == np.inf


@pytest.mark.parametrize(
    ("combine", "activation"), [("linear", "softmax"), ("log_linear", "softplus")]
)
def test_a_gate_beats_constants_where_members_are_right_in_turns(combine, activation):
    objective, rule = Objective(combine, "logits"), GateRule("scores", None, activation)
    parts = []
    for seed in (0, 1):
        x, logits, labels = problem(seed)
        parts.append(rows_of(logits, labels, x=x))
    constants = fit_constants(objective, parts[0], 2)
    torch.manual_seed(0)
    module = Tupled(features(2, 2))
    options = TrainingOptions(epochs=100, rate=0.1)
    fit = fit_gate(module, {"x": "x"}, 0, rule, objective, *parts, options)
    assert 0 < fit.epoch <= fit.epochs <= 100
    assert fit.losses[fit.epoch] == min(fit.losses)

    def gated(rows):
        return log_weights(gate_scores(module, rows, {"x": "x"}, 0), rule)

    held = score(objective, parts[1], gated)
    fixed = score(objective, parts[1], lambda rows: constants.log().expand(len(rows.labels), 2))
    assert held.nll < fixed.nll - 0.05
    assert held.accuracy > fixed.accuracy
    again = Tupled(features(2, 2))
    torch.manual_seed(0)
    again = Tupled(features(2, 2))
    assert fit_gate(again, {"x": "x"}, 0, rule, objective, *parts, options) == fit


class Tupled(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **feeds):
        return (self.module(**feeds),)


def test_scores_of_an_example_serve_all_its_positions_that_count():
    labels = np.array([[0, -1, 1], [-1, 2, -1]])
    rows = rows_of(np.zeros((2, 2, 3, 3)), labels)[0]
    assert rows.labels.tolist() == [0, 1, 2]
    per_example = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert rows.of_rows(per_example).tolist() == [[1, 2], [1, 2], [3, 4]]
    per_position = torch.arange(12.0).reshape(2, 3, 2)
    assert rows.of_rows(per_position).tolist() == [[0, 1], [4, 5], [8, 9]]


def test_members_run_once_and_what_they_said_is_found_again(tmp_path):
    runner = Said(np.eye(2))
    batches = [Batch({"x": np.full((3, 2), n, np.float32)}, np.zeros(3, np.int64)) for n in (1, 2)]
    for _ in range(2):
        with OutputCache(tmp_path) as cache:
            found = cache.outputs("key", "m", runner, "logits", batches)
            assert [float(array.sum()) for array in found] == [6, 12]
    assert runner.entered == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]


def test_a_run_that_fails_leaves_nothing_in_the_cache(tmp_path):
    batches = [Batch({"x": np.ones((3, 2), np.float32)}, np.full(3, 7, np.int64))]
    keep = label_log_probabilities("logits")
    with OutputCache(tmp_path) as cache, pytest.raises(RecipeError, match="a label is 7, and the"):
        cache.outputs("key", "m", Said(np.eye(2)), "logits", batches, keep)
    assert list(tmp_path.iterdir()) == []


def test_labels_that_are_not_one_for_each_row_are_refused():
    batch = Batch({}, np.zeros((3, 4), np.int64))
    with pytest.raises(RecipeError, match=r"have shape \[3, 4\] and the members' output \[3, 5\]"):
        label_log_probabilities("logits")(np.zeros((3, 5)), batch)
    assert whole(np.ones(3), batch).shape == (3,)


X = (TensorSpec("x", "float32", ("batch", 2)),)


def test_the_split_is_seeded_and_keeps_examples_apart():
    arrays, labels = {"x": np.arange(20.0).reshape(10, 2)}, np.arange(10)
    split = labelled_examples(arrays, labels, X, share=0.3, size=4, seed=1)
    again = labelled_examples(arrays, labels, X, share=0.3, size=4, seed=1)
    kept = [np.concatenate([b.labels for b in part]).tolist() for part in vars(split).values()]
    assert [len(part) for part in kept] == [7, 3]
    assert sorted(kept[0] + kept[1]) == list(range(10))
    assert all(np.array_equal(b.feeds["x"][:, 0], 2 * b.labels) for b in split.batches)
    assert [b.labels.tolist() for b in split.batches] == [b.labels.tolist() for b in again.batches]


@pytest.mark.parametrize(
    ("arrays", "share", "text"),
    [
        ({"y": np.zeros((4, 2))}, 0.5, "the data has no array 'x', which the models take"),
        ({"x": np.zeros((4, 2))}, 0.05, "4 examples, too few to keep a share of 0.05"),
        ({"x": np.zeros((4, 2))}, 1.0, "too few to keep a share of 1"),
    ],
)
def test_data_that_does_not_do_is_refused(arrays, share, text):
    with pytest.raises(RecipeError, match=text):
        labelled_examples(arrays, np.zeros(4, np.int64), X, share=share, size=4, seed=0)


def test_texts_are_labelled_with_the_token_that_follows():
    inputs = [
        TensorSpec("input_ids", "int64", ("b", "s")),
        TensorSpec("attention_mask", "int64", ("b", "s"), role="mask"),
    ]
    texts = [np.array([5, 6, 7, 8, 9]), np.array([1, 2])]
    split = text_examples(texts, inputs, window=3, share=0.4, size=8, seed=0)
    rows = {
        tuple(ids[mask > 0].tolist()): labels.tolist()
        for batch in split.batches
        for ids, mask, labels in zip(*batch.feeds.values(), batch.labels, strict=True)
    }
    assert {ids: [n for n in labels if n >= 0] for ids, labels in rows.items()} == {
        (5, 6, 7): [6, 7], (8, 9): [9], (1, 2): [2],
    }  # fmt: skip
    caches = [*inputs, TensorSpec("past_key_values.0.key", "float32", ("b", 2, "p", 4))]
    with pytest.raises(RecipeError, match=r"'past_key_values\.0\.key', which a text does not give"):
        text_examples(texts, caches, window=3, share=0.4, size=8, seed=0)


@pytest.mark.parametrize("make", [tokens, last_token])
def test_the_gates_for_text_do_not_look_ahead_and_not_at_padding(make):
    torch.manual_seed(0)
    gate = make(11, 3, 4)
    ids = torch.randint(0, 11, (2, 6))
    feeds = {"input_ids": ids} | (
        {"attention_mask": torch.ones_like(ids)} if make is tokens else {}
    )
    later = {**feeds, "input_ids": torch.cat([ids[:, :4], (ids[:, 4:] + 1) % 11], 1)}
    torch.testing.assert_close(gate(**feeds)[:, :4], gate(**later)[:, :4])
    assert not torch.allclose(gate(**feeds)[:, 4:], gate(**later)[:, 4:])
    if make is tokens:
        padded = {
            name: torch.cat([torch.zeros(2, 3, dtype=torch.long), t], 1)
            for name, t in feeds.items()
        }
        torch.testing.assert_close(gate(**padded)[:, 3:], gate(**feeds))


@pytest.mark.parametrize("gate", [features(4, 3), features(4, 3, hidden=5)])
def test_a_gate_starts_where_it_is_told(gate):
    gate.start_at(torch.tensor([1.0, 2.0, 3.0]))
    assert gate(torch.randn(2, 2, 2)).tolist() == [[1, 2, 3]] * 2
