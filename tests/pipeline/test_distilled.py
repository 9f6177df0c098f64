"""A student as a model of a recipe: taught, exported and proven in one command."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import write_huggingface, write_recipe, write_workshop
from toolkit.cli import main
from toolkit.errors import BundleError, MergeError, RecipeError
from toolkit.pipeline import (
    SparseOptions,
    SparseSource,
    distil,
    export_recipe,
    plan_distillation,
    prove_bundle,
    sparsify,
)
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

ARRAYS = """
model:
  distill:
    student: {factory: "shop:linear"}
    teachers:
      ensemble:
        combine: log_linear
        members:
          - {factory: "shop:linear", weights: linear.safetensors, name: one}
          - {factory: "shop:linear", weights: two.safetensors, name: two}
    data: {path: rows.npz}
    training: {epochs: 10, batch: 32, rate: 0.1, evaluate: 60, device: cpu}
inputs: {x: "float32[batch, 6]"}
shapes: {batch: [1, 4, 8]}
parity: {cases: 2}
"""
TOKENS = """
model:
  distill:
    student: {student}
    teachers:
      ensemble: {{combine: linear, members: [{{checkpoint: a}}, {{checkpoint: b}}]}}
    data: {{path: texts.jsonl, length: 12}}
    objective: {objective}
    training: {{steps: 6, batch: 4, device: cpu}}
  task: causal-lm
shapes: {{batch: [1, 2, 3], sequence: [1, 4, 8]}}
parity: {{cases: 2}}
"""
SMALL = """{tokenizer: a, config: {model_type: llama, hidden_size: 16, intermediate_size: 24,
      num_hidden_layers: 1, num_attention_heads: 2}}"""


@pytest.fixture
def shop(tmp_path):
    """Two linear teachers, whose log-linear ensemble is linear too, and rows."""
    folder = write_workshop(tmp_path / "shop")
    generator = torch.Generator().manual_seed(7)
    shapes = {"inner.weight": (4, 6), "inner.bias": (4,)}
    two = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(two, folder / "two.safetensors")
    x = np.random.default_rng(0).normal(size=(640, 6)).astype(np.float32)
    np.savez(folder / "rows.npz", x=x)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two causal teachers, one tokenizer, texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("texts")
    words = {f"w{i}": i for i in range(1, 97)} | {"</s>": 0}
    made = Tokenizer(models.WordLevel(words, "w1"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["</s>"])
    for name, seed in (("a", 1), ("b", 2)):
        write_huggingface(folder / name, "llama", seed, initializer_range=0.3)
        made.save(str(folder / name / "tokenizer.json"))
        told = json.dumps({"eos_token": "</s>", "pad_token": "</s>"})
        (folder / name / "tokenizer_config.json").write_text(told)
    rng = np.random.default_rng(0)
    lines = [{"text": " ".join(f"w{i}" for i in rng.integers(1, 97, 11))} for _ in range(30)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def planned(folder, text):
    recipe = load_recipe(write_recipe(folder, text), allow_code=True)
    return plan_distillation(recipe.model, recipe, folder, recipe.input_specs())


def command(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["distill", *map(str, arguments)])
    return exit_.value.code


def test_a_student_is_taught_once_exported_and_proven_in_one_command(shop):
    recipe = load_recipe(write_recipe(shop, ARRAYS), allow_code=True)
    said = []
    outcome = export_recipe(recipe, shop, shop / "out", lambda what, _d, _t: said.append(what))
    assert outcome.report.passed
    assert any(what.startswith("distil · loss") for what in said)
    # the ensemble's own logits are the mean of its members', so the student can be right
    one, two = (load_file(shop / f"{name}.safetensors") for name in ("linear", "two"))
    (weights,) = (shop / ".distill").glob("*/student/model.safetensors")
    found = load_file(weights)
    for name in ("inner.weight", "inner.bias"):
        mean = (one[name] + two[name]) / 2
        # what is equal in all classes cancels in a softmax
        centred = [t - t.mean(0, keepdim=True) for t in (found[name], mean)]
        torch.testing.assert_close(*centred, atol=0.02, rtol=0)
    before = weights.stat().st_mtime_ns
    assert not list((shop / ".distill").glob("*/work"))
    assert prove_bundle(shop / "out", allow_code=True).passed
    assert weights.stat().st_mtime_ns == before
    sources = {source.path for source in outcome.manifest.sources}
    assert any(path.endswith("student/model.safetensors") for path in sources)


@pytest.mark.parametrize(
    "how", ["live", "cache", "sequence", "interpolation", "on_policy", "match"]
)
def test_causal_students_learn_at_every_level(texts, tmp_path, how):
    objective = {
        "live": "{temperature: 2.0, hard: 0.5}",
        "cache": "{temperature: 2.0, hard: 0.5}",
        "on_policy": "{on_policy: 0.5, divergence: jsd, prompt: 4, new_tokens: 4}",
        "match": "{match: [{student: hidden.1, teacher: a/hidden.2}]}",
    }.get(how, f"{{level: {how}, prompt: 4, new_tokens: 5, beams: 2}}")
    what = planned(texts, TOKENS.format(student=SMALL, objective=objective))
    cache = tmp_path / "cache" if how == "cache" else None
    made = distil(what, tmp_path / "out", work=tmp_path / "work", cache=cache)
    assert made is not None
    assert made.training.steps == 6
    assert np.isfinite(made.training.losses).all()
    assert made.teachers.keys() == {"a", "b"}
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert not (tmp_path / "work").exists()
    assert (made.effect is not None) == (how == "cache")
    assert json.loads((tmp_path / "out" / "distillation.json").read_text())["task"] == "causal-lm"


def test_a_cache_of_all_classes_trains_as_the_teachers_do_and_they_are_not_loaded(
    texts, tmp_path, monkeypatch
):
    text = TOKENS.format(student=SMALL, objective="{hard: 0.25}").replace(
        "    training:", "    cache: {top_k: 97}\n    training:"
    )
    what = planned(texts, text)
    live = distil(what, tmp_path / "live", work=tmp_path / "w")
    kept = distil(what, tmp_path / "kept", work=tmp_path / "w", cache=tmp_path / "cache")
    assert kept.training.losses == pytest.approx(live.training.losses, rel=1e-5)
    assert kept.effect.gap == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr("toolkit.pipeline.distilling.live_teacher", None)
    again = distil(what, tmp_path / "again", work=tmp_path / "w", cache=tmp_path / "cache")
    assert again.training.losses == kept.training.losses


@pytest.mark.parametrize(
    ("student", "kind", "records"),
    [
        ("{checkpoint: a, layers: {first: 1}}", "bert", [{"text": "w1 w2", "label": 1}]),
        ("{checkpoint: a, layers: {first: 1}}", "sentence", [{"text": "w1 w2"}, {"text": "w5"}]),
        ("{checkpoint: a}", "t5", [{"text": "w1 w2", "target": "w3 w4"}]),
    ],
)
def test_classifiers_embeddings_and_encoder_decoders(texts, tmp_path, student, kind, records):
    for name in ("a", "b"):
        folder = write_huggingface(tmp_path / name, kind, ord(name))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((texts / "a" / file).read_bytes())
    lines = "".join(json.dumps(record) + "\n" for record in records * 6)
    (tmp_path / "texts.jsonl").write_text(lines)
    text = TOKENS.format(student=student, objective="{}").replace("  task: causal-lm\n", "")
    if kind == "sentence":
        text = re.sub(r"ensemble: .*", "checkpoint: b", text)
    what = planned(tmp_path, text.replace("steps: 6", "steps: 16, rate: 0.01"))
    made = distil(what, tmp_path / "out", work=tmp_path / "work")
    losses = made.training.losses
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_the_command_plans_trains_and_refuses_to_overwrite(shop, monkeypatch, capsys):
    monkeypatch.chdir(shop)
    write_recipe(shop, ARRAYS)
    assert command("recipe.yaml", "--dry-run", "--allow-code", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rows"] == {"train": 576, "held_out": 64}
    assert plan["steps"] == 180
    assert plan["student"]["parameters"] == 28
    arguments = ["recipe.yaml", "made", "--allow-code", "--cache", "kept", "--logs", "curves"]
    assert command(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["training"]["best"] > 0
    assert found["compression"]["classes"] == 4
    assert (shop / "made" / "model.safetensors").is_file()
    assert list((shop / "curves").iterdir())
    assert command(*arguments) == 1
    assert "made exists and is a folder with files in it" in capsys.readouterr().err
    assert command("recipe.yaml", "--allow-code") == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (('student: {factory: "shop:linear"}', "student: {}"), "found none of them, wanted one of"),
        (('{factory: "shop:linear"}', '{factory: "shop:linear", layers: {first: 1}}'),
         r"student\.layers: belongs to a checkpoint, which"),
        (("{path: rows.npz}", "{path: lost.npz}"), "'lost.npz' does not exist in"),
        (("rate: 0.1", "rate: 0"), r"training\.rate: found 0, wanted more than 0"),
        (("rate: 0.1", "ratte: 0.1"), r"training\.ratte: unknown key"),
    ],
)  # fmt: skip
def test_mistakes_in_the_recipe(shop, change, text):
    with pytest.raises(RecipeError, match=text):
        load_recipe(write_recipe(shop, ARRAYS.replace(*change)), allow_code=True)


def with_objective(text):
    return "    training", f"    objective: {{{text}}}\n    training"


def test_labels_alone_ask_no_teacher_and_what_cannot_be_kept_is_refused(shop, monkeypatch):
    what = planned(shop, ARRAYS.replace(*with_objective("target: mean_of_kls")))
    with pytest.raises(RecipeError, match="mean_of_kls needs the word of every teacher"):
        distil(what, shop / "o", work=shop / "w", cache=shop / "c")
    (shop / "full").mkdir()
    (shop / "full" / "x").write_text("")
    with pytest.raises(BundleError, match="full exists and is a folder with files in it"):
        distil(what, shop / "full", work=shop / "w")
    assert not (shop / "o").exists()


def test_a_sparse_student_learns_and_keeps_its_zeros(texts, tmp_path):
    sparse = texts / "sparse"
    if not sparse.exists():
        sparsify(SparseSource(texts / "a"), sparse, SparseOptions(Pattern(2, 4), "magnitude"))
    text = TOKENS.format(student="{checkpoint: sparse}", objective="{}")
    found = {}
    for keep in ("true", "false"):
        said = text.replace("device: cpu", f"device: cpu, keep_zeros: {keep}")
        out = tmp_path / keep
        distil(planned(texts, said), out, work=tmp_path / f"{keep}.work")
        found[keep] = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    before = load_file(sparse / "model.safetensors")[name]
    zeros = before == 0
    assert zeros.double().mean() == 0.5
    assert (found["true"][name][zeros] == 0).all()
    assert (found["true"][name][~zeros] != before[~zeros]).any()
    assert (found["false"][name][zeros] != 0).any()


def test_a_dense_student_has_no_zeros_to_keep(texts, tmp_path):
    text = TOKENS.format(student="{checkpoint: a}", objective="{}")
    said = text.replace("device: cpu", "device: cpu, keep_zeros: true")
    with pytest.raises(MergeError, match="there is no mask to keep"):
        distil(planned(texts, said), tmp_path / "out", work=tmp_path / "work")
