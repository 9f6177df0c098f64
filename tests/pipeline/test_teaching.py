"""One ensemble definition, three uses: it is run, exported, and taught from, live and from disk."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from tests.pipeline.test_stacked import recipe as stack_recipe
from tests.pipeline.test_stacked import write_combiner
from tests.pipeline.test_vocabularies import ROWS, WORDS, write_words
from tests.workshop import write_huggingface, write_recipe, write_workshop
from toolkit.distill import (
    CachedTeacher,
    CacheKey,
    Compression,
    Needs,
    SearchOptions,
    StudentOutputs,
    WordLevel,
    beam_search,
    begin,
    compress,
    write_cache,
)
from toolkit.distill.whole import SourceToLogits
from toolkit.errors import RecipeError
from toolkit.gates import tokens
from toolkit.pipeline import make_plan
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.reference import reference_runner
from toolkit.pipeline.teaching import live_teacher, teacher_definition
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner
from toolkit.sources import HuggingFaceSource
from toolkit.sources.heads import TokenLogits

FACTORIES = """
model:
  ensemble:
    {how}
    members:
      - {{factory: "shop:linear", weights: linear.safetensors}}
      - {{factory: "shop:deep", weights: deep.safetensors}}
inputs: {{x: "float32[batch, 6]"}}
shapes: {{batch: [1, 4, 8]}}
"""
TOKENS = """
model:
  ensemble:
    combine: {combine}
    weights: [0.25, 0.75]
    members: [{{checkpoint: a{cache}}}, {{checkpoint: b{cache}}}]
shapes: {{batch: [1, 2, 4], sequence: [1, 6, 12]{past}}}
"""
GATE = """combine: {}
    gate:
      model: {{factory: "shop:linear", weights: gate.safetensors, kwargs: {{classes: 2}}}}"""
HOW = {
    "linear": "combine: linear\n    weights: [0.3, 0.7]",
    "log_linear": "combine: log_linear\n    weights: [0.8, 0.7]",
    "gated": GATE.format("linear"),
    "gated_product": GATE.format("log_linear"),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = write_workshop(tmp_path_factory.mktemp("teaching") / "shop")
    generator = torch.Generator().manual_seed(9)
    shapes = {"inner.weight": (2, 6), "inner.bias": (2,)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(drawn, folder / "gate.safetensors")
    options = {"vocab_size": ROWS, "initializer_range": 0.3}
    write_huggingface(folder / "a", "llama", 1, **options)
    write_huggingface(folder / "b", "gpt2", 2, **options)
    return folder


def planned(folder, text):
    return make_plan(load_recipe(write_recipe(folder, text), allow_code=True), folder)


@pytest.fixture(scope="module")
def exported(shop, tmp_path_factory):
    """Every model as ONNX: combinations of them are fused of the same files."""
    found = {}
    texts = (FACTORIES.format(how=HOW["gated"]), TOKENS.format(combine="linear", cache="", past=""))
    for text in texts:
        found |= export_leaves(planned(shop, text), tmp_path_factory.mktemp("m"), silent)
    return found


def agree(plan, task, batch, folder, exported):
    """Log probabilities of the live teacher, the exported graph and the cache, row by row."""
    live = live_teacher(plan, task)
    targets = live.targets(batch)
    logs = targets.log_probs
    own = {name: exported[name] for name, _ in plan.leaves()}
    fuse_leaves(plan, own, folder / "m.onnx", ())
    torch.testing.assert_close(live.speak(batch).reshape(logs.shape), logs)
    feeds = {name: value.numpy() for name, value in batch.items() if name != "index"}
    for runner in (OrtRunner(folder / "m.onnx"), reference_runner(plan, "float64")):
        with runner as run:
            (found,) = (torch.from_numpy(x.copy()) for n, x in run(feeds).items() if n == "logits")
        exported = found.reshape(logs.shape).double().log_softmax(-1)
        torch.testing.assert_close(logs.double(), exported, rtol=1e-5, atol=2e-5)
    key = CacheKey(teacher_definition(plan.root), "d", {})
    how = Compression(3)
    write_cache(folder / "cache", live, [batch], key, compression=how)
    small = CachedTeacher(folder / "cache", key, task, how).targets(batch)
    values, ids = exported.topk(3)
    rows = targets.mask
    assert torch.equal(small.ids[rows], ids[rows])
    torch.testing.assert_close(small.kept[rows].double(), values[rows], rtol=1e-5, atol=2e-5)
    rest = torch.log1p(-values.exp().sum(-1))[rows]
    torch.testing.assert_close(small.rest[rows].double(), rest, rtol=1e-3, atol=1e-4)
    return targets


@pytest.mark.parametrize("how", list(HOW))
def test_factories_teach_what_their_graph_says(shop, exported, tmp_path, how):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    agree(
        planned(shop, FACTORIES.format(how=HOW[how])),
        "classification",
        {"x": x, "index": torch.arange(5)},
        tmp_path,
        exported,
    )


@pytest.mark.parametrize("combine", ["linear", "log_linear"])
def test_language_models_teach_what_their_graph_says(shop, exported, tmp_path, combine):
    for name in "ab":
        (shop / name / "tokenizer.json").unlink(missing_ok=True)
    ids = torch.randint(1, ROWS, (3, 6), generator=torch.Generator().manual_seed(4))
    real = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4])
    batch = {"input_ids": ids * real, "attention_mask": real, "index": torch.arange(3)}
    text = TOKENS.format(combine=combine, cache="", past="")
    targets = agree(planned(shop, text), "causal-lm", batch, tmp_path, exported)
    assert targets.mask.reshape(3, 6).sum(-1).tolist() == [5, 3, 1]
    cached = TOKENS.format(
        combine=combine, cache=", cache: true", past=", past_sequence: [0, 2, 9]"
    )
    same = live_teacher(planned(shop, cached), "causal-lm").targets(batch)
    assert torch.equal(same.log_probs, targets.log_probs)


def test_stacks_and_onnx_files_teach_what_their_runners_say(shop, exported):
    write_combiner(shop, hidden=3)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(6))
    model = next(path for name, path in exported.items() if "deep" in name)
    shutil.copyfile(model, shop / "deep.onnx")
    foreign = FACTORIES.format(how=HOW["linear"]).replace(
        '{factory: "shop:deep", weights: deep.safetensors}', "{onnx: deep.onnx}"
    )
    for text in (stack_recipe(hidden=3), foreign):
        plan = planned(shop, text)
        found = live_teacher(plan, "classification").targets({"x": x}).log_probs
        with reference_runner(plan, "float64") as run:
            wanted = torch.from_numpy(run({"x": x.numpy()})["logits"].copy()).log_softmax(-1)
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-5)


def test_three_targets_and_their_identities(shop):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(5))
    plan, product = (planned(shop, FACTORIES.format(how=HOW[h])) for h in ("linear", "log_linear"))
    three = {
        target: live_teacher(plan, "classification", target=target).targets({"x": x})
        for target in ("mixture", "mean_of_logits", "mean_of_kls")
    }
    logits = three["mean_of_kls"].per_teacher
    torch.testing.assert_close(three["mean_of_kls"].weights, torch.tensor([0.3, 0.7]))
    mean = (0.3 * logits[0] + 0.7 * logits[1]).log_softmax(-1)
    torch.testing.assert_close(three["mean_of_logits"].log_probs, mean)
    mixture = (0.3 * logits[0].softmax(-1) + 0.7 * logits[1].softmax(-1)).log()
    torch.testing.assert_close(three["mixture"].log_probs, mixture)
    assert float((mixture - mean).abs().max()) > 0.1
    own = live_teacher(product, "classification", target="mean_of_logits").targets({"x": x})
    same = live_teacher(product, "classification").targets({"x": x})
    torch.testing.assert_close(own.log_probs, same.log_probs)
    with pytest.raises(RecipeError, match="only a distribution can be compressed"):
        compress(three["mean_of_kls"])
    gated = planned(shop, FACTORIES.format(how=HOW["gated"]))
    by_row = live_teacher(gated, "classification", target="mean_of_kls").targets({"x": x})
    assert by_row.weights.shape == (5, 2)
    torch.testing.assert_close(by_row.weights.sum(-1), torch.ones(5))


def test_an_encoder_decoder_ensemble_teaches_whole(tmp_path):
    for name, kind in (("t", "t5"), ("b", "bart")):
        write_huggingface(tmp_path / name, kind, 3)
    text = """
model: {ensemble: {combine: linear, weights: [0.4, 0.6], members: [{checkpoint: t}, {checkpoint: b}]}}
part: decoder
shapes: {batch: [1, 2, 2], source: [1, 5, 9], sequence: [1, 2, 4], past_sequence: [0, 4, 20]}
"""  # noqa: E501
    plan = planned(tmp_path, text)
    source = torch.tensor([[5, 6, 7, 1], [9, 1, 0, 0]])
    batch = {
        "input_ids": source,
        "attention_mask": (source > 0).long(),
        "decoder_input_ids": torch.tensor([[0, 4, 8], [0, 7, 1]]),
        "labels": torch.tensor([[4, 8, 1], [7, 1, -100]]),
    }
    options = SearchOptions(3, 5, ends=(1, 40, 41))
    teacher = live_teacher(plan, "seq2seq-lm")
    beginning = begin("seq2seq-lm", {**batch, "index": torch.arange(2)}, options)
    written = [beam_search(s, beginning, options) for s in (teacher.speak, teacher.remembering())]
    assert [[h.tokens for h in each] for each in written[0]] == [
        [h.tokens for h in each] for each in written[1]
    ]
    needs = Needs(teacher=("t/hidden.2", "b/attention.0"))
    student = HuggingFaceSource("t", tmp_path / "t")
    found = live_teacher(plan, "seq2seq-lm", student=student, needs=needs).targets(batch)
    feeds = {name: value for name, value in batch.items() if name != "labels"}
    said = []
    for name in ("t", "b"):
        model = hf.AutoModelForSeq2SeqLM.from_pretrained(
            tmp_path / name, dtype="float32", attn_implementation="eager"
        ).eval()
        with torch.no_grad():
            said.append(model(**feeds, output_hidden_states=True, output_attentions=True))
    wanted = (
        sum(w * one.logits.softmax(-1) for w, one in zip((0.4, 0.6), said, strict=True))
        .log()
        .reshape(6, -1)
    )
    torch.testing.assert_close(found.log_probs, wanted, rtol=1e-5, atol=1e-5)
    assert found.mask.tolist() == [True] * 5 + [False]
    torch.testing.assert_close(found.hidden["t/hidden.2"], said[0].decoder_hidden_states[2])
    torch.testing.assert_close(found.hidden["b/attention.0"], said[1].decoder_attentions[0])
    with pytest.raises(RecipeError, match=r"'c/hidden\.0' names none of the teachers"):
        live_teacher(plan, "seq2seq-lm", needs=Needs(teacher=("c/hidden.0",)))


def lengths_read(tree):
    """How many tokens every model of transformers is given at a time."""
    seen = []

    def note(_module, _args, given):
        ids = given.get("decoder_input_ids", given.get("input_ids"))
        seen.append(ids.shape[1])

    for node in tree.modules():
        if isinstance(node, TokenLogits | SourceToLogits):
            node.model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def test_ensembles_that_remember_write_what_they_would_write_without(shop, tmp_path):
    """A gate reads everything again, members one token; vocabularies are translated."""
    for name, words in (("a", WORDS), ("b", list(reversed(WORDS)))):
        shutil.copytree(shop / name, tmp_path / name)
        write_words(tmp_path / name, words)
    gate = tokens(ROWS, 2, 8)
    torch.manual_seed(0)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    save_file(gate.state_dict(), tmp_path / "gate.safetensors")
    texts = {
        "constant": TOKENS.format(combine="linear", cache="", past=""),
        "gated": TOKENS.format(combine="linear", cache="", past="").replace(
            "weights: [0.25, 0.75]",
            'gate: {model: {factory: "toolkit.gates:tokens", weights: gate.safetensors,'
            f" kwargs: {{vocabulary: {ROWS}, members: 2, width: 8}}}}}}",
        ),
    }
    ids = torch.randint(1, ROWS, (3, 9), generator=torch.Generator().manual_seed(8))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "index": torch.arange(3)}
    options = SearchOptions(3, 6, ends=(2, 5), prompt=4)
    for text in texts.values():
        teacher = live_teacher(planned(tmp_path, text), "causal-lm")
        wanted = beam_search(teacher.speak, begin("causal-lm", batch, options), options)
        seen = lengths_read(teacher.tree)
        for _ in range(2):  # memories begin anew
            found = beam_search(teacher.remembering(), begin("causal-lm", batch, options), options)
            assert [[h.tokens for h in each] for each in found] == [
                [h.tokens for h in each] for each in wanted
            ]
        assert set(seen) == {4, 5, 1}  # the prompt, what is tried against caches, new tokens
        assert seen.count(1) > 12
        assert torch.equal(
            teacher.targets(batch).log_probs,
            live_teacher(planned(tmp_path, text), "causal-lm").targets(batch).log_probs,
        )


def test_embeddings_and_masked_models_teach(tmp_path):
    write_huggingface(tmp_path / "s", "sentence", 2)
    write_huggingface(tmp_path / "r", "roberta", 2)
    ids = torch.tensor([[5, 6, 7], [9, 3, 1]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plan = planned(tmp_path, "model: {checkpoint: s}\n")
    batch_with_types = {**batch, "token_type_ids": torch.zeros_like(ids)}
    needs = Needs(False, teacher=("sentence_embedding", "hidden.1"))
    found = live_teacher(plan, "embedding", needs=needs).targets(batch_with_types)
    assert found.log_probs is None
    with reference_runner(plan, "float32") as run:
        feeds = {name: value.numpy() for name, value in batch_with_types.items()}
        wanted = run(feeds)["sentence_embedding"]
    np.testing.assert_allclose(found.hidden["sentence_embedding"].numpy(), wanted, rtol=1e-5)
    assert found.hidden["hidden.1"].shape == (2, 3, 32)
    labels = torch.tensor([[-100, 6, -100], [-100, -100, 1]])
    masked = live_teacher(planned(tmp_path, "model: {checkpoint: r}\n"), "masked-lm")
    found = masked.targets({**batch, "labels": labels})
    assert found.mask.tolist() == [False, True, False, False, False, True]
    assert found.log_probs.shape == (6, 97)


def test_padding_of_vocabularies_is_no_class_and_other_tokenizers_are_refused(shop, tmp_path):
    """The teachers' embeddings are padded to another size than the student's."""
    write_huggingface(tmp_path / "small", "llama", 4, vocab_size=ROWS)
    for name in "ab":
        shutil.copytree(shop / name, tmp_path / name)
        write_words(tmp_path / name, WORDS)
    write_huggingface(tmp_path / "wide", "llama", 4, vocab_size=ROWS + 8)
    write_words(tmp_path / "wide", WORDS)
    write_words(tmp_path / "small", WORDS)
    ids = torch.tensor([[1, 5, 2, 9]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plan = planned(tmp_path, TOKENS.format(combine="linear", cache="", past=""))
    wide = live_teacher(plan, "causal-lm", student=HuggingFaceSource("s", tmp_path / "wide"))
    same = live_teacher(plan, "causal-lm", student=HuggingFaceSource("s", tmp_path / "small"))
    logs, wanted = (one.targets(batch).log_probs for one in (wide, same))
    assert logs.shape == (4, ROWS + 8)
    torch.testing.assert_close(logs[:, :ROWS], wanted)
    assert bool(logs[:, ROWS:].isneginf().all())
    z = torch.randn(4, ROWS + 8, requires_grad=True)
    for kind in ("forward_kl", "reverse_kl", "jsd"):
        said = StudentOutputs(z, {}, torch.ones(4).bool())
        loss = WordLevel(kind)(said, wide.targets(batch), batch).total
        (gradient,) = torch.autograd.grad(loss, z)
        assert bool(gradient.isfinite().all())
    words = [*WORDS[:-2], "fish", "bird"]
    write_words(tmp_path / "small", words)
    with pytest.raises(RecipeError) as caught:
        live_teacher(plan, "causal-lm", student=HuggingFaceSource("s", tmp_path / "small"))
    assert caught.value.message == (
        "the student 's' cannot learn words from 'a': their tokenizers differ, so the same ids "
        "mean different text: 2 tokens of 's', such as 'fish' and 2 tokens of 'a', such as 'it'"
    )
    assert "one tokenizer" in caught.value.hint
    assert json.dumps(teacher_definition(plan.root))
