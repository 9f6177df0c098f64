"""Where students begin, what they say, and that they end as normal checkpoints."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.workshop import write_huggingface, write_workshop
from toolkit.artifacts import TensorSpec
from toolkit.distill import Needs
from toolkit.distill.layers import Layers
from toolkit.distill.speaking import speaking
from toolkit.distill.students import FactoryStudent, HuggingFaceStudent
from toolkit.errors import RecipeError
from toolkit.sources import FactorySource, HuggingFaceSource

X = (TensorSpec("x", "float32", ("batch", 6)),)
SMALL = {"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24,
         "num_hidden_layers": 2, "num_attention_heads": 2}  # fmt: skip


def batch_of(student, rows=3, length=5):
    ids = torch.arange(rows * length).reshape(rows, length) % 40
    ones = torch.ones_like(ids)
    given = {"attention_mask": ones, "token_type_ids": 0 * ids}
    batch = {spec.name: given.get(spec.name, ids) for spec in student.inputs}
    return {**batch, "labels": ids, "index": torch.arange(rows)}


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2", "sentence", "t5", "bart"])
def test_a_checkpoint_speaks_as_it_did_and_is_saved_as_one(tmp_path, kind):
    folder = write_huggingface(tmp_path / "a", kind)
    (folder / "tokenizer.json").write_text("{}")
    student = HuggingFaceStudent(folder)
    needs = Needs(student=("sentence_embedding",) if kind == "sentence" else ("hidden.1",))
    speaker = student.build(0, needs).eval()
    batch = batch_of(student)
    task = student.task
    if task == "classification":
        batch["labels"] = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        said = speaking(speaker(batch), batch, task)
    if kind in {"t5", "bart"}:
        assert said.logits.shape == (15, 97)
    else:
        source = HuggingFaceSource("a", folder)
        given = {spec.name: batch[spec.name] for spec in source.inputs}
        with torch.no_grad():
            wanted = source.load()(**given)[0]
        found = said.hidden["sentence_embedding"] if kind == "sentence" else said.logits
        torch.testing.assert_close(found, wanted.reshape(found.shape), rtol=1e-4, atol=1e-5)
    student.save(speaker, speaker.state_dict(), tmp_path / "b")
    assert (tmp_path / "b" / "tokenizer.json").is_file()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_configuration_begins_at_random_by_the_seed(tmp_path):
    student = HuggingFaceStudent(config=SMALL, head="causal-lm")
    one, same, other = (student.build(seed, Needs()).state_dict() for seed in (0, 0, 1))
    name = "module.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    student.save(student.build(0, Needs()), one, tmp_path / "b")
    assert HuggingFaceSource("b", tmp_path / "b").outputs == ("logits",)


@pytest.mark.parametrize(
    ("kind", "layers", "kept"),
    [
        ("llama", Layers(first=1), {0: 0}),
        ("gpt2", Layers(numbers=(1,)), {0: 1}),
        ("bert", Layers(every=2), {0: 0}),
        ("t5", Layers(first=1), {0: 0}),
    ],
)
def test_layers_of_a_teacher_are_its_own_under_new_numbers(tmp_path, kind, layers, kept):
    folder = write_huggingface(tmp_path / "a", kind)
    student = HuggingFaceStudent(folder, layers=layers)
    speaker = student.build(0, Needs())
    state = speaker.state_dict()
    whole = load_file(folder / "model.safetensors")
    names = [n for n in state if any(f".{new}." in n for new in kept) and "weight" in n]
    assert names
    for name in names:
        ((new, old),) = kept.items()
        own = name.removeprefix("module.").replace(f".{new}.", f".{old}.", 1)
        if own in whole:
            assert torch.equal(state[name], whole[own])
    assert not any(".1." in name and "block" in name and "layer.1" not in name for name in state)
    student.save(speaker, state, tmp_path / "b")
    smaller = sum(p.numel() for p in load_file(tmp_path / "b" / "model.safetensors").values())
    assert smaller < sum(p.numel() for p in whole.values())
    if kind != "t5":
        HuggingFaceSource("b", tmp_path / "b").load()


def test_kept_layers_compute_what_they_did(tmp_path):
    folder = write_huggingface(tmp_path / "a", "llama")
    cut = HuggingFaceStudent(folder, layers=Layers(first=1)).build(0, Needs(student=("hidden.1",)))
    whole = HuggingFaceStudent(folder).build(0, Needs(student=("hidden.1",)))
    batch = batch_of(HuggingFaceStudent(folder))
    with torch.no_grad():
        # of the whole the first layer's output, of the cut the same before its final norm
        inner = cut.module.model.layers[0].state_dict()
        assert all(torch.equal(v, whole.module.model.layers[0].state_dict()[k])
                   for k, v in inner.items())  # fmt: skip
        torch.testing.assert_close(
            cut(batch)[1]["hidden.1"], whole.module.model.norm(whole(batch)[1]["hidden.1"])
        )


def test_a_factory_begins_as_its_callable_or_its_weights_say(tmp_path):
    shop = write_workshop(tmp_path / "shop")
    source = FactorySource("s", "shop:deep", shop / "deep.safetensors", X, search=shop)
    needs = Needs(student=("inner.1",))
    fresh, begun = (FactoryStudent(source, begins).build(0, needs) for begins in (False, True))
    given = load_file(shop / "deep.safetensors")
    assert torch.equal(begun.state_dict()["module.module.inner.0.weight"], given["inner.0.weight"])
    assert not torch.equal(fresh.state_dict()["module.module.inner.0.weight"],
                           given["inner.0.weight"])  # fmt: skip
    batch = {"x": torch.randn(3, 6), "index": torch.arange(3)}
    said = speaking(begun(batch), batch, "classification")
    assert said.logits.shape == (3, 4)
    assert said.hidden["inner.1"].shape == (3, 5)
    FactoryStudent(source).save(begun, begun.state_dict(), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_mistakes(tmp_path):
    with pytest.raises(RecipeError, match="no student can be made of the configuration"):
        HuggingFaceStudent(config={"model_type": "lama"}).inputs  # noqa: B018
    with pytest.raises(RecipeError, match="it is not said what the student is for"):
        HuggingFaceStudent(config=SMALL).task  # noqa: B018
    folder = write_huggingface(tmp_path / "a", "llama")
    with pytest.raises(RecipeError, match="up to 4, and the checkpoint has 2, from 0 to 1"):
        HuggingFaceStudent(folder, layers=Layers(first=5)).inputs  # noqa: B018
    student = HuggingFaceStudent(folder)
    with pytest.raises(RecipeError, match=r"'hidden.9' of the student, and it has hidden.0 to"):
        student.build(0, Needs(student=("hidden.9",)))(batch_of(student))
    shop = write_workshop(tmp_path / "shop")
    source = FactorySource("s", "shop:deep", shop / "deep.safetensors", X, search=shop)
    with pytest.raises(RecipeError, match=r"'inner\.7' of the student, which has no such module"):
        FactoryStudent(source).build(0, Needs(student=("inner.7",)))
