"""Texts that teachers and students write: the search, the choice, and what is trained on."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import transformers as hf

from tests.workshop import write_huggingface
from toolkit.distill import (
    CacheKey,
    Hypothesis,
    OnPolicy,
    SearchOptions,
    StudentOutputs,
    Targets,
    beam_search,
    begin,
    chosen,
    read_sequences,
    row_mask,
    sample,
    sentence_bleu,
    taught,
    write_sequences,
)
from toolkit.distill.objectives import HardLabels, WordLevel, mixed
from toolkit.distill.remembering import Memory, Remembering
from toolkit.distill.sequences import reference
from toolkit.errors import IntegrityError, RecipeError

KEY = CacheKey({"files": ["a"]}, "d", {})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    write_huggingface(folder / "t5", "t5", 3, initializer_factor=2.0, tie_word_embeddings=False)
    write_huggingface(folder / "llama", "llama", 4, initializer_range=0.4)
    autos = {"t5": hf.AutoModelForSeq2SeqLM, "llama": hf.AutoModelForCausalLM}
    return {
        name: auto.from_pretrained(folder / name, dtype="float32").eval()
        for name, auto in autos.items()
    }


def speaker(model):
    return lambda feeds: model(**feeds, use_cache=False).logits


def seq2seq_batch():
    source = torch.tensor([[5, 17, 3, 9, 1], [90, 2, 7, 1, 0], [44, 1, 0, 0, 0], [8, 8, 8, 3, 1]])
    return {
        "input_ids": source,
        "attention_mask": (source > 0).long(),
        "decoder_input_ids": torch.zeros(4, 3).long(),
        "labels": torch.tensor([[5, 3, 1], [2, 1, -100], [9, 9, 1], [4, 1, -100]]),
        "index": torch.tensor([3, 0, 7, 1]),
    }


def causal_batch():
    ids = torch.randint(2, 97, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "index": torch.arange(4)}


ENDS = tuple(range(60, 80))  # so many that some hypotheses end early, and some never


@pytest.mark.parametrize("penalty", [1.0, 0.6])
@pytest.mark.parametrize("name", ["t5", "llama"])
def test_beams_are_those_of_transformers(models, name, penalty):
    options = SearchOptions(3, 7, penalty, ENDS, prompt=4)
    settings = {
        "num_beams": 3,
        "num_return_sequences": 3,
        "max_new_tokens": 7,
        "length_penalty": penalty,
        "do_sample": False,
        "eos_token_id": list(ENDS),
        "pad_token_id": 0,
        "early_stopping": False,
        "return_dict_in_generate": True,
        "output_scores": True,
        # transformers' own caches need as many layers in the encoder as in the decoder
        "use_cache": False,
    }
    if name == "t5":
        task, batch, skip = "seq2seq-lm", seq2seq_batch(), 1
        given = {key: batch[key] for key in ("input_ids", "attention_mask")}
        settings["decoder_start_token_id"] = 0
    else:
        task, batch, skip = "causal-lm", causal_batch(), 4
        given = {key: batch[key][:, :4] for key in ("input_ids", "attention_mask")}
    ours = beam_search(speaker(models[name]), begin(task, batch, options), options)
    memory = Memory(models[name])
    remembered = beam_search(Remembering(memory, (memory,)), begin(task, batch, options), options)
    assert [[one.tokens for one in each] for each in remembered] == [
        [one.tokens for one in each] for each in ours
    ]
    with torch.no_grad():
        theirs = models[name].generate(**given, **settings)
    flat = [one for each in ours for one in each]
    assert len({len(one.tokens) for one in flat}) > 1
    for one, ids, score in zip(flat, theirs.sequences, theirs.sequences_scores, strict=True):
        tokens = ids[skip:].tolist()
        assert list(one.tokens) == tokens[: len(one.tokens)]
        assert one.score == pytest.approx(float(score), rel=1e-4)


def test_the_mixture_is_searched_and_not_each_member():
    """Two members over five tokens, against every text of three tokens."""
    tables = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(2)) * 3

    def speak(feeds):
        parts = [table[feeds["input_ids"]].softmax(-1) for table in tables]
        return (0.4 * parts[0] + 0.6 * parts[1]).log()

    batch = {"input_ids": torch.tensor([[0, 1], [3, 1]]), "index": torch.arange(2)}
    options = SearchOptions(25, 3)
    found = beam_search(speak, begin("causal-lm", batch, options), options)
    logs = speak({"input_ids": torch.arange(5)})
    for first, each in zip((0, 3), found, strict=True):
        every = {
            text: sum(float(logs[a, b]) for a, b in itertools.pairwise((first, *text))) / 3
            for text in itertools.product(range(5), repeat=3)
        }
        best = sorted(every, key=every.get, reverse=True)
        assert [one.tokens for one in each[:3]] == best[:3]
        assert each[0].score == pytest.approx(every[best[0]], rel=1e-5)


def test_bleu_of_a_sentence():
    assert sentence_bleu([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == pytest.approx(1.0)
    assert sentence_bleu([], [1]) == 0
    assert sentence_bleu([7, 8], [1, 2]) == 0
    # unigrams 3/4, bigrams (1+1)/(3+1), trigrams (0+1)/(2+1), fourgrams (0+1)/(1+1); 4 of 6 long
    wanted = math.exp(1 - 6 / 4) * (3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25
    assert sentence_bleu([1, 2, 9, 4], [1, 2, 3, 4, 5, 6]) == pytest.approx(wanted)
    assert sentence_bleu([1, 1, 1], [1, 2, 3]) < sentence_bleu([1, 2, 1], [1, 2, 3])


def test_interpolation_takes_the_closest_hypothesis():
    beams = [Hypothesis(-0.1, (4, 4, 4, 1)), Hypothesis(-0.2, (2, 3, 1)), Hypothesis(-0.3, (2, 1))]
    assert chosen("sequence", beams, [2, 3, 5, 1], (1,)) == (4, 4, 4, 1)
    assert chosen("interpolation", beams, [2, 3, 5, 1], (1,)) == (2, 3, 1)
    assert chosen("interpolation", beams, [9, 9], (1,)) == (4, 4, 4, 1)


def test_sequence_level_is_training_on_the_teachers_beams(models, tmp_path):
    """Against transformers: its own beam search, and its own loss on labels."""
    teacher, batch = models["t5"], seq2seq_batch()
    options = SearchOptions(3, 5, ends=(1, *ENDS))
    write_sequences(
        tmp_path / "s", speaker(teacher), "seq2seq-lm", [batch], key=KEY, options=options
    )
    found = read_sequences(tmp_path / "s", KEY, options)
    rows = {place: found[number][0].tokens for place, number in enumerate(batch["index"].tolist())}
    new = {**batch, **taught("seq2seq-lm", batch, rows)}
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        written = teacher.generate(
            **given, num_beams=3, max_new_tokens=5, do_sample=False, early_stopping=False,
            use_cache=False, eos_token_id=[1, *ENDS], pad_token_id=0, decoder_start_token_id=0,
        )[:, 1:]  # fmt: skip
    labels = torch.full_like(written, -100)
    for row, text in enumerate(rows.values()):
        labels[row, : len(text)] = written[row, : len(text)]
    torch.manual_seed(0)
    student = hf.T5ForConditionalGeneration(teacher.config).eval()
    wanted = student(**given, labels=labels)
    torch.autograd.backward(wanted.loss)
    gradient = student.lm_head.weight.grad.clone()
    student.zero_grad()
    feeds = {name: new[name] for name in (*given, "decoder_input_ids")}
    logits = student(**feeds).logits.flatten(0, 1)
    mask = row_mask("seq2seq-lm", new)
    loss = HardLabels("seq2seq-lm")(StudentOutputs(logits, {}, mask), Targets(mask), new)
    torch.testing.assert_close(loss.mean, wanted.loss)
    loss.mean.backward()
    torch.testing.assert_close(student.lm_head.weight.grad, gradient)
    assert int(loss.count) == int((labels >= 0).sum())
    other = SearchOptions(4, 5, ends=(1, *ENDS))
    with pytest.raises(IntegrityError, match="written from other search"):
        read_sequences(tmp_path / "s", KEY, other)


def test_a_causal_row_is_its_prompt_and_what_was_written():
    batch = causal_batch()
    columns = {name: value for name, value in batch.items() if name != "index"}
    new = taught("causal-lm", columns, {1: (11, 12), 2: tuple(range(20, 28))}, prompt=4)
    assert new["input_ids"].shape == (4, 12)
    assert new["input_ids"][1].tolist() == [*batch["input_ids"][1, :4].tolist(), 11, 12, *[0] * 6]
    assert new["attention_mask"].sum(-1).tolist() == [9, 6, 12, 9]
    assert new["labels"][1].tolist() == [*[-100] * 4, 11, 12, *[-100] * 6]
    assert new["labels"][0].tolist() == [*batch["input_ids"][0].tolist(), *[-100] * 3]
    counted = row_mask("causal-lm", new).reshape(4, 12)
    assert counted.sum(-1).tolist() == [8, 2, 8, 8]
    assert counted[1].nonzero().flatten().tolist() == [3, 4]
    assert reference("causal-lm", columns, 1, 4) == batch["input_ids"][1, 4:6].tolist()
    with pytest.raises(RecipeError, match="a row has 6 tokens, and 6 of each are the prompt"):
        begin("causal-lm", batch, SearchOptions(prompt=6))
    with pytest.raises(RecipeError, match="a masked-lm model continues no text"):
        begin("masked-lm", batch, SearchOptions())


class Counting(torch.nn.Module):
    """Says the next number, nearly always."""

    def __init__(self, sure=50.0):
        super().__init__()
        self.sure, self.modes = sure, []

    def forward(self, feeds):
        self.modes.append(self.training)
        ids = feeds["input_ids"]
        return torch.nn.functional.one_hot((ids + 1) % 9, 9) * self.sure, {}


def test_the_student_writes_some_of_the_batches():
    ids = torch.tensor([[1, 2, 7, 7], [3, 4, 7, 0]])
    batch = {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "labels": ids.masked_fill(ids == 0, -100),
        "index": torch.tensor([5, 8]),
    }
    options = SearchOptions(max_new_tokens=4, ends=(6,), prompt=2)
    student = Counting().train()
    new = OnPolicy("causal-lm", 1.0, options)(student, batch)
    assert new["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 0, 0]]
    assert new["attention_mask"].sum(-1).tolist() == [6, 4]
    assert row_mask("causal-lm", new).reshape(2, 6).sum(-1).tolist() == [4, 2]
    assert new["index"].tolist() == [5, 8]
    assert "labels" not in new
    logits, mask = torch.randn(12, 9, requires_grad=True), row_mask("causal-lm", new)
    parts = StudentOutputs(logits, {}, mask), Targets(mask, logits.detach().log_softmax(-1) * 0.5)
    hard, soft = HardLabels("causal-lm"), WordLevel()
    assert float(hard(*parts, new).total.detach()) == 0
    both = mixed(0.25, hard, soft)(*parts, new)
    torch.testing.assert_close(both.total, 0.75 * soft(*parts, new).total)
    assert int(both.count) == 6
    assert student.training
    assert not any(student.modes)
    assert OnPolicy("causal-lm", 0.0, options)(student, batch) is batch
    torch.manual_seed(0)
    some = OnPolicy("causal-lm", 0.3, SearchOptions(max_new_tokens=1, prompt=2))
    written = sum(some(student, batch) is not batch for _ in range(400))
    assert 0.22 < written / 400 < 0.38
    # of a student that is not sure, samples follow its probabilities
    wide = {"input_ids": torch.ones(4000, 1).long(), "index": torch.arange(4000)}
    texts = sample(
        lambda feeds: Counting(2.0)(feeds)[0],
        begin("causal-lm", {**wide, "input_ids": torch.ones(4000, 2).long()}, SearchOptions()),
        SearchOptions(max_new_tokens=1),
        temperature=2.0,
        generator=torch.Generator().manual_seed(3),
    )
    share = sum(text == (2,) for text in texts) / 4000
    assert share == pytest.approx(math.e / (math.e + 8), abs=0.02)
