"""Soups: what is kept, how it is scored, and that what is written is the average."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.merge.models import save_file
from toolkit.errors import MergeError
from toolkit.merge.evaluators import Accuracy, Perplexity, read_arrays
from toolkit.merge.soup import SoupMember, SoupOptions, make_soup

BASE = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Net(nn.Module):
    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4, bias=False)
        self.linear.weight.data = torch.from_numpy(weight.copy())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.linear(x),)


class Distance:
    """Scores by closeness to a target; counts how often it was asked."""

    metric = "closeness"

    def __init__(self, target: np.ndarray) -> None:
        self.target, self.seen = torch.from_numpy(target), []

    def score(self, module: nn.Module) -> float:
        self.seen.append(module.linear.weight.detach().clone())
        return -float((module.linear.weight.detach() - self.target).norm())


def member(folder, name, change):
    weight = (BASE + change).astype(np.float32)
    save_file(folder / f"{name}.safetensors", {"linear.weight": weight})
    return SoupMember(name, folder / f"{name}.safetensors", lambda: Net(weight))


@pytest.fixture
def members(tmp_path):
    step = np.zeros_like(BASE)
    step[0, 0] = 0.5
    changes = {"left": -step, "right": step, "far": 3 * step, "near": 0.2 * step}
    return [member(tmp_path, name, change) for name, change in changes.items()]


def test_a_greedy_soup_tries_members_from_the_best_and_keeps_what_does_not_hurt(members, tmp_path):
    evaluator = Distance(BASE)
    report = make_soup(members, evaluator, tmp_path / "out")
    assert [step.name for step in report.steps] == ["near", "left", "right", "far"]
    # near: 0.1; with left: |0.1 - 0.5| / 2 = 0.2; with right: 0.3; with far: 0.8.
    assert report.kept == ("near",)
    assert report.score == report.best == pytest.approx(-0.1)
    trimmed = make_soup(members[:2], Distance(BASE), tmp_path / "two")
    assert trimmed.kept == ("left", "right")
    assert trimmed.score == pytest.approx(0, abs=1e-6)


def test_a_greedy_soup_keeps_a_candidate_that_changes_nothing(tmp_path):
    twins = [member(tmp_path, name, 0) for name in ("one", "two")]
    assert make_soup(twins, Distance(BASE), tmp_path / "out").kept == ("one", "two")


@pytest.mark.parametrize("seed", range(5))
def test_a_greedy_soup_is_never_worse_than_its_best_member(tmp_path, seed):
    rng = np.random.default_rng(seed)
    found = [member(tmp_path, f"m{n}", 0.2 * rng.normal(size=BASE.shape)) for n in range(6)]
    evaluator = Distance(BASE)
    report = make_soup(found, evaluator, tmp_path / "out")
    assert report.score >= report.best
    written = tensors_of(tmp_path / "out", "model").astype(np.float32)
    kept = [tensors_of(tmp_path, name) for name in report.kept]
    assert np.allclose(written, np.mean(kept, axis=0), rtol=1e-6)
    assert evaluator.score(Net(written)) == pytest.approx(report.score, rel=1e-5)
    assert [step.alone for step in report.steps] == sorted(
        (step.alone for step in report.steps), reverse=True
    )


def tensors_of(folder, name):
    return np.array(read_arrays(folder / f"{name}.safetensors")["linear.weight"], np.float64)


def test_candidates_are_scored_as_the_running_average(members, tmp_path):
    evaluator = Distance(BASE)
    make_soup(members, evaluator, tmp_path / "out", SoupOptions("uniform"))
    expected = np.mean([tensors_of(tmp_path, m.name) for m in members], axis=0)
    assert np.allclose(evaluator.seen[-1], expected, rtol=1e-6)
    assert len(evaluator.seen) == len(members) + len(members) - 1


def test_members_are_read_twice_and_no_more(members, tmp_path):
    loads = dict.fromkeys((m.name for m in members), 0)

    def counted(each):
        def load():
            loads[each.name] += 1
            return each.load()

        return SoupMember(each.name, each.weights, load)

    make_soup([counted(m) for m in members], Distance(BASE), tmp_path / "out")
    assert set(loads.values()) == {2}


def test_a_uniform_soup_takes_all(members, tmp_path):
    report = make_soup(members, Distance(BASE), tmp_path / "out", SoupOptions("uniform"))
    assert set(report.kept) == {m.name for m in members}
    told = report.to_json()
    assert told["kind"] == "uniform"
    assert told["steps"][0] == {"name": "near", "alone": report.best, "together": report.best,
                                "kept": True}  # fmt: skip
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("names", [["a"], ["a", "a"]])
def test_a_soup_needs_two_members_of_different_names(tmp_path, names):
    with pytest.raises(MergeError, match="two or more members of different names"):
        make_soup([member(tmp_path, n, 0) for n in names], Distance(BASE), tmp_path / "out")


def test_members_of_other_shapes_are_refused(tmp_path):
    first = member(tmp_path, "a", 0)
    other = SoupMember("b", first.weights, lambda: nn.Sequential(nn.Linear(2, 2)))

    class One:
        metric = "one"

        def score(self, _module):
            return 1.0

    with pytest.raises(MergeError, match="'b' has other tensors than the first"):
        make_soup([first, other], One(), tmp_path / "out")


# Evaluators.


def labelled(folder, name="data.npz", **arrays):
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    found = {"x": x, "labels": (x @ BASE.T).argmax(1)} | arrays
    if name.endswith(".npz"):
        np.savez(folder / name, **found)
    else:
        save_file(folder / name, found)
    return folder / name


@pytest.mark.parametrize("name", ["data.npz", "data.safetensors"])
@pytest.mark.parametrize("batch", [7, 256])
def test_accuracy_is_the_share_of_right_labels(tmp_path, name, batch):
    path = labelled(tmp_path, name)
    assert Accuracy.from_file(path, batch).score(Net(BASE)) == 1
    flipped = Accuracy.from_file(path, batch).score(Net(-BASE))
    arrays = read_arrays(path)
    assert flipped == np.mean((arrays["x"] @ -BASE.T).argmax(1) == arrays["labels"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(50)}, "no whole numbers under labels"),
        ({"labels": np.zeros(49, int)}, "different numbers of examples"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    with pytest.raises(MergeError, match=message):
        Accuracy.from_file(labelled(tmp_path, **arrays))


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, labels=np.array([{}], dtype=object))
    with pytest.raises(MergeError, match=r"is no \.npz or \.safetensors of plain arrays"):
        Accuracy.from_file(path)


class Bigram(nn.Module):
    """Knows the probability of a token after another."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(np.log(table)))

    def forward(self, input_ids, attention_mask):
        return (self.table[input_ids],)


def test_perplexity_is_that_of_the_mean_loss(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.jsonl").write_text('{"text": "a b a"}\n\n{"text": "b"}\n{"text": "b b"}\n')
    table = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25], [1 / 3] * 3])
    evaluator = Perplexity.from_file(tmp_path / "text.jsonl", tmp_path)
    expected = np.exp(-np.mean(np.log([0.7, 0.5, 0.25])))
    assert evaluator.score(Bigram(table)) == pytest.approx(-expected)
    (tmp_path / "plain.txt").write_text("a b a")
    short = Perplexity.from_file(tmp_path / "plain.txt", tmp_path, window=2)
    assert short.score(Bigram(table)) == pytest.approx(-1 / 0.7)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"txt": "a"}', "is not lines of"), ("{", "is not lines of"), ("", "no text of two tokens")],
)
def test_wrong_texts_are_refused(tmp_path, content, message):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(
        str(tmp_path / "tokenizer.json")
    )
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(MergeError, match=message):
        Perplexity.from_file(tmp_path / "t.jsonl", tmp_path)
