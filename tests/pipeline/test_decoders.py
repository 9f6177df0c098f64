"""Causal models with caches as one graph decode what the models in transformers decode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

import graphs
from tests.workshop import write_huggingface, write_recipe
from toolkit.artifacts import OnnxModel
from toolkit.caches import PAST, present_of
from toolkit.engine import EngineOptions, build_engine
from toolkit.errors import RecipeError
from toolkit.export import adopt_onnx
from toolkit.gates import last_token
from toolkit.parity.sweep import sweep
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.reference import output_specs, reference_runner
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

STEPS = 64
# Depth, width, heads, architecture: all differ.
MODELS = {
    "g": ("gpt2", {"n_layer": 2}),
    "l": ("llama", {"num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 40}),
    "q": ("qwen2", {"num_hidden_layers": 1, "hidden_size": 48, "num_attention_heads": 6}),
}
FLAT = """
model:
  ensemble:
    combine: {combine}
    weights: {weights}
    members: [{{checkpoint: g, cache: true}}, {{checkpoint: l, cache: true}},
              {{checkpoint: q, cache: true}}]
shapes: {{batch: [1, 2, 3], sequence: [1, 4, 9], past_sequence: [0, 8, 80]}}
parity: {{cases: 1}}
"""
NESTED = """
model:
  ensemble:
    combine: log_linear
    weights: [0.5, 0.75]
    members:
      - {checkpoint: g, cache: true}
      - name: inner
        ensemble:
          combine: linear
          members: [{checkpoint: l, cache: true}, {checkpoint: q, cache: true}]
shapes: {batch: [1, 2, 2], sequence: [1, 2, 3], past_sequence: [0, 4, 12]}
parity: {cases: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("decoders")
    for seed, (name, (kind, changes)) in enumerate(MODELS.items()):
        places = {"n_positions" if kind == "gpt2" else "max_position_embeddings": 90}
        # weights so large that what was said before decides what comes next
        lively = {"initializer_range": 0.4}
        write_huggingface(made / name, kind, seed, **places, **lively, **changes)
    return made


def plan_of(folder, text):
    return make_plan(load_recipe(write_recipe(folder, text)), folder)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The members' graphs, which every ensemble of them shares."""
    plan = plan_of(folder, FLAT.format(combine="linear", weights=[0.25, 0.25, 0.5]))
    return export_leaves(plan, tmp_path_factory.mktemp("members"), silent)


def fused(folder, exported, tmp_path, combine, weights):
    plan = plan_of(folder, FLAT.format(combine=combine, weights=weights))
    fuse_leaves(plan, exported, tmp_path / "fused.onnx", ())
    return OrtRunner(tmp_path / "fused.onnx")


class Ensemble:
    """The models in transformers, each with its own cache, interpolated as defined."""

    def __init__(self, folder, combine, weights):
        self.models = [
            hf.AutoModelForCausalLM.from_pretrained(
                folder / name, dtype="float32", attn_implementation="eager"
            ).eval()
            for name in MODELS
        ]
        self.caches = [hf.DynamicCache() for _ in MODELS]
        self.combine, self.weights = combine, weights

    @torch.inference_mode()
    def __call__(self, ids, mask, positions):
        given = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "position_ids": torch.from_numpy(positions),
        }
        logits = [
            model(**given, past_key_values=cache, use_cache=True).logits.double()
            for model, cache in zip(self.models, self.caches, strict=True)
        ]
        weighted = list(zip(self.weights, logits, strict=True))
        if self.combine == "linear":
            return sum(w * z.softmax(-1) for w, z in weighted).log().numpy()
        return sum(w * z for w, z in weighted).log_softmax(-1).numpy()


class Fused:
    """The graph, which gets back the caches that it gave."""

    def __init__(self, runner, rows):
        self.runner = runner
        self.past = {
            spec.name: np.zeros([rows, spec.shape[1], 0, spec.shape[3]], np.float32)
            for spec in runner.inputs
            if spec.name.startswith(PAST)
        }

    def __call__(self, ids, mask, positions):
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **self.past}
        found = self.runner(feeds)
        self.past = {name: found[present_of(name)] for name in self.past}
        return found["logits"]


def decode(model, prompt, mask):
    """Greedy tokens [rows, steps], each chosen by the model itself, and their log-probabilities."""
    tokens, logits, ids = [], [], prompt
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    for _ in range(STEPS):
        logits.append(model(ids, mask, positions)[:, -1])
        ids = logits[-1].argmax(-1)[:, None].astype(np.int64)
        tokens.append(ids)
        mask = np.hstack([mask, np.ones_like(ids)])
        positions = positions[:, -1:] + 1
    return np.hstack(tokens), np.stack(logits, 1)


@pytest.mark.parametrize(
    "how", [("linear", [0.2, 0.5, 0.3]), ("log_linear", [0.7, 0.1, 0.4])], ids=["or", "and"]
)
@pytest.mark.parametrize("lengths", [(1,), (9, 9), (2, 9, 5)], ids=["empty", "prefill", "padded"])
def test_sixty_four_steps_are_those_of_transformers(folder, exported, tmp_path, how, lengths):
    rng = np.random.default_rng(len(lengths))
    prompt = rng.integers(0, 97, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths))[::-1] < np.array(lengths)[:, None]).astype(np.int64)
    wanted, expected = decode(Ensemble(folder, *how), prompt, mask)
    with fused(folder, exported, tmp_path, *how) as run:
        tokens, found = decode(Fused(run, len(lengths)), prompt, mask)
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(np.unique(tokens)) > 3  # not one token for ever, which any cache would give


@pytest.mark.parametrize("place", range(3))
def test_a_one_hot_weight_is_that_member(folder, exported, tmp_path, place):
    weights = [float(i == place) for i in range(3)]
    only = Ensemble(folder, "linear", weights)
    only.weights, only.models, only.caches = [1.0], [only.models[place]], [only.caches[place]]
    prompt = np.random.default_rng(3).integers(0, 97, (1, 4))
    wanted, expected = decode(only, prompt, np.ones_like(prompt))
    with fused(folder, exported, tmp_path, "linear", weights) as run:
        tokens, found = decode(Fused(run, 1), prompt, np.ones_like(prompt))
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_nested_ensemble_is_proven_by_decoding_and_every_cache_is_compared(folder, tmp_path):
    recipe = load_recipe(write_recipe(folder, NESTED))
    outcome = export_recipe(recipe, folder, tmp_path / "out")
    assert outcome.report.passed
    kinds = {case.kind for case in outcome.report.cases}
    assert {"decode", "split prefill"} <= kinds
    outputs = [record.name for record in outcome.manifest.outputs]
    assert outputs[0] == "logits"
    assert outputs[1] == "present.g.0.key"
    assert outputs[-1] == "present.inner.q.0.value"
    assert {verdict.output for verdict in outcome.report.verdicts} >= set(outputs)
    assert {spec.name for spec in outcome.manifest.inputs} == {
        "input_ids", "attention_mask", "position_ids",
        *(name.replace("present.", PAST) for name in outputs[1:]),
    }  # fmt: skip


def test_one_member_at_a_time_gives_what_all_together_give(folder):
    plan = plan_of(folder, NESTED)
    names = [spec.name for spec in output_specs(plan)]
    feeds = [case.feeds for case in proof_cases(plan) if case.drive is None][:3]
    # no room in memory, so the caches wait on disk
    apart = list(sweep(reference_runner(plan, "float32"), feeds, memory_bytes=0))
    with reference_runner(plan, "float32") as run:
        for make, found in zip(feeds, apart, strict=True):
            together = run(make())
            assert set(found) == set(names) == set(together)
            for name in names:
                np.testing.assert_array_equal(found[name], together[name])


GATED = """
model:
  ensemble:
    combine: linear
    gate:
      model: {factory: "toolkit.gates:last_token", weights: gate.safetensors,
              kwargs: {vocabulary: 97, members: 2, width: 4}}
    members: [{checkpoint: g, cache: true}, {checkpoint: l, cache: true}]
shapes: {batch: [1, 2, 3], sequence: [1, 4, 9], past_sequence: [0, 8, 80]}
parity: {cases: 1}
"""


def test_a_gate_weighs_decoders_token_by_token(folder, tmp_path):
    torch.manual_seed(5)
    gate = last_token(97, 2, 4)
    save_file({k: 3 * torch.randn_like(v) for k, v in gate.state_dict().items()},
              folder / "gate.safetensors")  # fmt: skip
    plan = plan_of(folder, GATED)
    fuse_leaves(plan, export_leaves(plan, tmp_path, silent), tmp_path / "gated.onnx", ())
    prompt = np.random.default_rng(6).integers(0, 97, (2, 5))
    with reference_runner(plan, "float64") as reference:
        wanted, expected = decode(Fused(reference, 2), prompt, np.ones_like(prompt))
    with OrtRunner(tmp_path / "gated.onnx") as run:
        tokens, found = decode(Fused(run, 2), prompt, np.ones_like(prompt))
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.rtx
def test_tensorrt_rtx_builds_gated_decoders_behind_an_if(folder, tmp_path):
    gate = last_token(97, 2, 4)
    save_file(gate.state_dict(), folder / "gate.safetensors")
    plan = plan_of(folder, GATED)
    leaves = export_leaves(plan, tmp_path, silent)
    fuse_leaves(plan, leaves, tmp_path / "skip.onnx", (graphs.SkipGatedMembers(),))
    assert graphs.describe(tmp_path / "skip.onnx").operators["If"] == 2
    for target in ("tensorrt", "tensorrt-rtx"):
        found = graphs.check_tensorrt(tmp_path / "skip.onnx", target, ranges=tuple(plan.shapes))
        assert list(map(str, found)) == []
    options = EngineOptions(flavour="tensorrt-rtx", compute_capabilities=("8.9",))
    model = OnnxModel(tmp_path / "skip.onnx", plan.inputs, (), 20)
    assert build_engine(model, plan.shapes, options, tmp_path / "model.plan").layers > 0


@pytest.mark.rtx
def test_tensorrt_rtx_builds_the_fused_decoder(folder, exported, tmp_path):
    plan = plan_of(folder, FLAT.format(combine="linear", weights=[0.25, 0.25, 0.5]))
    fuse_leaves(plan, exported, tmp_path / "fused.onnx", ())
    found = adopt_onnx(tmp_path / "fused.onnx")
    model = OnnxModel(found.path, plan.inputs, found.outputs, found.opset)
    options = EngineOptions(flavour="tensorrt-rtx", compute_capabilities=("8.9",))
    engine = build_engine(model, plan.shapes, options, tmp_path / "model.plan")
    assert engine.layers > 0
    for target in ("tensorrt", "tensorrt-rtx"):
        assert graphs.check_tensorrt(model.path, target, ranges=tuple(plan.shapes)) == ()
    assert {spec.name for spec in engine.outputs} == set(plan.root.outputs)


def refusal(folder, members):
    with pytest.raises(RecipeError) as caught:
        plan_of(folder, f"model: {{ensemble: {{combine: linear, members: [{members}]}}}}\n")
    return caught.value


def test_members_with_and_without_caches_read_different_things(folder):
    error = refusal(folder, "{checkpoint: g, cache: true}, {checkpoint: l}")
    assert error.message == (
        "member 'g' has a cache and member 'l' has none, but both read 'input_ids', of which one "
        "would get the new tokens and the other all of them"
    )
    assert error.hint == "cache: true for both"


def test_a_cache_is_not_renamed(folder):
    renamed = "{checkpoint: g, cache: true, rename: {past_key_values.0.key: k}}"
    error = refusal(folder, "{checkpoint: l, cache: true}, " + renamed)
    assert error.message == (
        "member 'g' renames 'past_key_values.0.key', a cache, which belongs to it alone"
    )
    assert error.hint == "leave it out: in the ensemble it is called past_key_values.g.0.key"
