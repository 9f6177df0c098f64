"""The text sample: what is held out, what is learnt, what is combined."""

from __future__ import annotations

from pathlib import Path

import torch


def test_passages_are_whole_and_no_part_shares_any(recipes: Path) -> None:
    import text_train

    text = text_train.split(0)
    parts = [set(text.train), set(text.fit), set(text.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert len(text.fit) == len(text.test) > 5
    assert text_train.split(1).test != text.test
    assert max(map(len, text.train)) < 4 * text_train.PASSAGE


def test_the_vocabulary_reads_any_text_back(recipes: Path) -> None:
    import text_train

    tokenizer = text_train.tokenizer_of(text_train.split(0).train[:20])
    said = "def caf\N{LATIN SMALL LETTER E WITH ACUTE}(x):\n    return 1"
    assert tokenizer.decode(tokenizer.encode(said).ids) == said
    assert text_train.stream_of(tokenizer, ["a", "b"]).tolist().count(0) == 2


def test_training_is_seeded_and_lowers_the_perplexity(recipes: Path) -> None:
    import text_train

    stream = torch.arange(4000) % 50
    models = [text_train.train("llama", stream, 3, steps) for steps in (6, 6, 1)]
    same, again, first = (text_train.perplexity(model, stream[:600]) for model in models)
    assert same == again < first


def test_every_combination_names_each_member_once(recipes: Path) -> None:
    import text_ensembles

    weights = dict.fromkeys(("linear", "log_linear"), (0.2, 0.3, 0.5))
    made = text_ensembles.models(weights)
    assert list(made)[:3] == list(text_ensembles.NAMES)
    for title in ("linear, uniform", "linear, gated", "log-linear, fitted"):
        members = made[title]["ensemble"]["members"]
        assert [member["checkpoint"] for member in members] == list(text_ensembles.NAMES)
    stages = made["stacked"]["stack"]["stages"]
    assert len(stages) == len(text_ensembles.NAMES) + 1
