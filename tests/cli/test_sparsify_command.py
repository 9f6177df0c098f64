"""``toolkit sparsify`` and ``toolkit inspect --sparsity``."""

from __future__ import annotations

import json

import pytest

from tests.workshop import write_huggingface


@pytest.fixture
def llama(shop):
    write_huggingface(shop / "dense", "llama")
    rows = [{"input_ids": list(range(1 + i, 20 + i))} for i in range(6)]
    (shop / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return shop


def test_it_prunes_judges_and_is_inspected(run, llama):
    found = run(
        "sparsify", "dense", "sparse", "--calibration", "texts.jsonl", "--evaluate", "texts.jsonl"
    )
    assert found.code == 0, found.err
    assert "tensors to 2:4 by second-order" in found.out
    assert "perplexity: " in found.out
    before = json.loads(run("inspect", "dense", "--sparsity", "--json").out)
    after = json.loads(run("inspect", "sparse", "--sparsity", "--json").out)
    assert before["2:4 holds in"] == 0
    assert after["2:4 holds in"] == 14  # seven in each of two layers
    assert after["matrices"] == 16
    row = next(row for row in after["sparsity"] if "down_proj" in row["name"])
    assert (row["zeros"], row["2:4"]) == ("50.0%", "yes")


def test_json_says_what_was_done(run, llama):
    found = run("sparsify", "dense", "out", "--pattern", "1:4", "--layers", "*mlp*", "--json")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    assert (report["pattern"], report["method"], report["quality"]) == ("1:4", "magnitude", None)
    assert len(report["tensors"]) == 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--pattern", "4:2"), "wanted N:M"),
        (("--method", "guess"), "magnitude, wanda or second-order"),
        (("--method", "wanda"), "--calibration data.npz"),
        (("--factory", "shop:linear"), "--allow-code"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(run, llama, options, told):
    found = run("sparsify", "dense", "out", *options)
    assert found.code == 1
    assert told in found.err
    assert "Traceback" not in found.err
    assert not (llama / "out").exists()
