"""Encoder-decoder models as two graphs that decode what the models in transformers decode."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.workshop import write_huggingface, write_recipe
from toolkit.artifacts import OnnxModel
from toolkit.caches import CROSS, PAST, present_of
from toolkit.cli import main
from toolkit.engine import EngineOptions, build_engine
from toolkit.errors import BundleError, RecipeError
from toolkit.export import adopt_onnx
from toolkit.generation import GenerationSettings, Generator
from toolkit.parity.sweep import sweep
from toolkit.pipeline import export_recipe, make_plan
from toolkit.pipeline.export import publish_path
from toolkit.pipeline.graph import export_leaves, fuse_leaves
from toolkit.pipeline.proof_cases import proof_cases
from toolkit.pipeline.reference import reference_runner
from toolkit.pipeline.twin import fresh_twin
from toolkit.progress import silent
from toolkit.recipe import load_recipe
from toolkit.runtime import OrtRunner

STEPS = 32
# Depth, width, heads, architecture and start token: all differ.
STARTS = {"t": 0, "b": 2}
WEIGHTS = {"linear": [0.35, 0.65], "log_linear": [0.15, 0.3]}
TEXT = """
model:
  ensemble:
    combine: {combine}
    weights: {weights}
    members: [{{checkpoint: t}}, {{checkpoint: b}}]
part: {part}
shapes: {{batch: [1, 3, 4], source: [1, 5, 9], sequence: [1, 2, 3], past_sequence: [0, 4, 36]}}
parity: {{cases: 1}}
"""
PROMPTS = ([5, 17, 3, 9, 41, 2, 8, 30, 1], [90, 2, 7, 1], [44])
WORDS = [f"w{number}" for number in range(97)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("seq2seq")
    # weights so large that source and past decide what comes next, and do not decide it fully
    write_huggingface(
        made / "t", "t5", 9, initializer_factor=2.0, num_layers=1, num_decoder_layers=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    write_huggingface(
        made / "b", "bart", 19, init_std=0.25, decoder_layers=1, decoder_start_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name in STARTS:
        tokenizer.save(str(made / name / "tokenizer.json"))
    return made


def recipe_of(folder, part, combine="linear"):
    text = TEXT.format(part=part, combine=combine, weights=WEIGHTS[combine])
    return load_recipe(write_recipe(folder, text, f"{part}.yaml"))


def plan_of(folder, part, combine="linear"):
    return make_plan(recipe_of(folder, part, combine), folder)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The members' own graphs by part, which every ensemble of them shares."""
    place = tmp_path_factory.mktemp("members")
    found = {}
    for part in ("encoder", "decoder"):
        (place / part).mkdir()
        found[part] = export_leaves(plan_of(folder, part), place / part, silent)
    return found


@pytest.fixture(scope="module")
def outcomes(folder, exported):
    """What exporting each part of one recipe made."""
    recipe = recipe_of(folder, "decoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "toolkit.pipeline.export.export_leaves", lambda plan, *_: exported[plan.recipe.part]
        )
        return {
            part: export_recipe(recipe.model_copy(update={"part": part}), folder, folder / part)
            for part in ("encoder", "decoder")
        }


@pytest.fixture(scope="module")
def members(folder):
    made = []
    for name in STARTS:
        model = hf.AutoModelForSeq2SeqLM.from_pretrained(folder / name).eval()
        model.generation_config.eos_token_id = None
        made.append(model)
    return made


def padded(prompts):
    longest = max(map(len, prompts))
    mask = np.array([[i < len(p) for i in range(longest)] for p in prompts]).astype(np.int64)
    ids = np.array([[*p, *[0] * (longest - len(p))] for p in prompts])
    return ids, mask


@torch.inference_mode()
def said(members, ids, mask, tokens, combine="linear"):
    """The definition, in transformers, from whole texts: no cache of any kind."""
    logits = []
    for model, start in zip(members, STARTS.values(), strict=True):
        first = np.full((len(ids), 1), start)
        given = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "decoder_input_ids": torch.from_numpy(np.hstack([first, tokens])),
        }
        logits.append(model(**given, use_cache=False).logits[:, -1].double())
    weighted = list(zip(WEIGHTS[combine], logits, strict=True))
    if combine == "linear":
        return sum(w * z.softmax(-1) for w, z in weighted).log().numpy()
    return sum(w * z for w, z in weighted).log_softmax(-1).numpy()


def decoded(members, prompts, combine="linear"):
    """Greedy tokens [rows, steps] and the log probabilities they were chosen by."""
    ids, mask = padded(prompts)
    tokens, logits = np.zeros((len(ids), 0), np.int64), []
    for _ in range(STEPS):
        logits.append(said(members, ids, mask, tokens, combine))
        tokens = np.hstack([tokens, logits[-1].argmax(-1)[:, None]])
    return tokens, np.stack(logits, 1)


def run_pair(encoder, decoder, prompts):
    """The same by the two graphs: the decoder feeds on what both of them gave."""
    ids, mask = padded(prompts)
    with OrtRunner(encoder) as run:
        cross = run({"input_ids": ids, "attention_mask": mask})
    tokens, logits, ids = [], [], np.zeros((len(ids), 1), np.int64)
    with OrtRunner(decoder) as run:
        past = {
            spec.name: np.zeros([len(ids), spec.shape[1], 0, spec.shape[3]], np.float32)
            for spec in run.inputs
            if spec.name.startswith(PAST)
        }
        for _ in range(STEPS):
            found = run({"decoder_input_ids": ids, "attention_mask": mask, **past, **cross})
            past = {name: found[present_of(name)] for name in past}
            logits.append(found["logits"][:, -1])
            ids = logits[-1].argmax(-1)[:, None]
            tokens.append(ids)
    return np.hstack(tokens), np.stack(logits, 1)


def test_both_parts_of_one_recipe_are_proven(outcomes):
    encoder, decoder = outcomes["encoder"], outcomes["decoder"]
    assert encoder.report.passed
    assert decoder.report.passed
    assert {"decode", "split prefill"} <= {case.kind for case in decoder.report.cases}
    given = [tensor.name for tensor in encoder.manifest.outputs]
    assert given[0] == f"{CROSS}t.0.key"
    assert given[-1] == f"{CROSS}b.0.value"
    assert [tensor.name for tensor in encoder.manifest.inputs] == ["input_ids", "attention_mask"]
    taken = {tensor.name for tensor in decoder.manifest.inputs}
    past = {name.replace(CROSS, PAST) for name in given}
    assert taken == {"decoder_input_ids", "attention_mask", *given, *past}
    outputs = [tensor.name for tensor in decoder.manifest.outputs]
    assert outputs == ["logits", *(name.replace(CROSS, "present.") for name in given)]
    for outcome in (encoder, decoder):
        checks = [c for v in outcome.report.verdicts for c in v.checks if c.gate.startswith("padd")]
        assert {c.status for c in checks if c.gate == "padding content"} == {"pass"}


def test_thirty_two_steps_from_the_shipped_files_are_those_of_transformers(members, outcomes):
    files = [outcomes[part].folder / "model.onnx" for part in ("encoder", "decoder")]
    wanted, expected = decoded(members, PROMPTS)
    tokens, found = run_pair(*files, PROMPTS)
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(np.unique(tokens)) > 8  # not one token for ever, which any cache would give
    assert STARTS["t"] not in tokens  # which the other model would read as its own start
    assert len({tuple(row) for row in tokens}) == 3  # nor the same whatever is read


def test_a_product_of_experts_decodes_likewise(folder, members, exported, outcomes, tmp_path):
    plan = plan_of(folder, "decoder", "log_linear")
    fuse_leaves(plan, exported["decoder"], tmp_path / "and.onnx", ())
    wanted, expected = decoded(members, PROMPTS, "log_linear")
    encoder = outcomes["encoder"].folder / "model.onnx"
    tokens, found = run_pair(encoder, tmp_path / "and.onnx", PROMPTS)
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.rtx
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_tensorrt_rtx_builds_either_part(folder, outcomes, tmp_path, part):
    plan = plan_of(folder, part)
    found = adopt_onnx(outcomes[part].folder / "model.onnx")
    model = OnnxModel(found.path, plan.inputs, found.outputs, found.opset)
    options = EngineOptions(flavour="tensorrt-rtx", compute_capabilities=("8.9",))
    engine = build_engine(model, plan.shapes, options, tmp_path / "model.plan")
    assert {spec.name for spec in engine.outputs} == set(plan.root.outputs)


def test_encoders_one_at_a_time_give_what_they_give_together(folder):
    plan = plan_of(folder, "encoder")
    feeds = [case.feeds for case in proof_cases(plan)][:3]
    apart = list(sweep(reference_runner(plan, "float32"), feeds, memory_bytes=0))
    with reference_runner(plan, "float32") as run:
        for make, found in zip(feeds, apart, strict=True):
            together = run(make())
            assert set(found) == set(plan.root.outputs) == set(together)
            for name, array in together.items():
                np.testing.assert_array_equal(found[name], array)


def test_values_inside_encoders_side_by_side_can_be_explained(folder):
    text = "model: {ensemble: {combine: linear, members: [{checkpoint: b}]}}\npart: encoder\n"
    plan = make_plan(load_recipe(write_recipe(folder, text, "one.yaml")), folder)
    feeds = proof_cases(plan)[1].feeds()
    with fresh_twin(plan) as twin, reference_runner(plan, "float64") as run:
        wanted, found = run(feeds), twin.truth(feeds, plan.root.outputs)
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12)


class Mixed(hf.LogitsProcessor):
    """Makes transformers' own generation by the first model that of the mixture."""

    def __init__(self, member, prompt):
        self.member, self.prompt = member, prompt

    def __call__(self, input_ids, scores):
        tokens = input_ids.clone()
        tokens[:, 0] = STARTS["b"]
        ids = torch.tensor([self.prompt] * len(tokens))
        other = self.member(input_ids=ids, decoder_input_ids=tokens, use_cache=False).logits[:, -1]
        parts = zip(WEIGHTS["linear"], (scores, other), strict=True)
        return sum(w * z.softmax(-1) for w, z in parts).log()


@pytest.fixture(scope="module")
def generator(outcomes):
    encoder, decoder = (outcomes[part].folder for part in ("encoder", "decoder"))
    found = Generator(decoder, encoder=encoder, threads=1)
    found.ends = frozenset()
    return found


def test_generation_is_that_of_transformers_with_beams_too(generator, members):
    greedy = generator(PROMPTS, GenerationSettings(STEPS))
    tokens, _ = decoded(members, PROMPTS)
    assert [one.tokens for one in greedy] == [tuple(row) for row in tokens.tolist()]
    first, second = members
    for beams, end in ((1, None), (3, None), (4, int(tokens[0, 3]))):
        generator.ends = frozenset([] if end is None else [end])
        found = generator(PROMPTS, GenerationSettings(20, beams=beams))
        for prompt, one in zip(PROMPTS, found, strict=True):
            wanted = first.generate(
                torch.tensor([prompt]), num_beams=beams, max_new_tokens=20, do_sample=False,
                eos_token_id=end, pad_token_id=0, use_cache=False,
                logits_processor=[Mixed(second, prompt)],
            )  # fmt: skip
            assert one.tokens == tuple(wanted[0, 1:].tolist()), (beams, prompt)
    generator.ends = frozenset()


def test_what_the_two_graphs_cannot_do_is_refused(generator):
    for prompts, count, message in (
        ([[]], 4, "prompt 1 is empty"),
        ([[97]], 4, "token 97, and the model knows 0 to 96"),
        ([[1] * 10], 4, "has 10 tokens, and the graph takes up to 9"),
        ([[1]] * 5, 4, "5 rows, and the graph takes up to 4"),
        ([[1]], 40, "1 tokens and 40 more need a cache of 39 positions"),
    ):
        with pytest.raises(RecipeError, match=message):
            generator(prompts, GenerationSettings(count))
    assert len(generator([[1]], GenerationSettings(37))[0].tokens) == 37


def test_the_command_takes_both_bundles(outcomes, members, capsys):
    encoder, decoder = (str(outcomes[part].folder) for part in ("encoder", "decoder"))
    command = ["generate", decoder, "--max-new-tokens", "6", "--prompt", "w5 w17 w3"]

    def run(*more):
        with pytest.raises(SystemExit) as stop:
            main([*command, *more])
        return stop.value.code, capsys.readouterr()

    wanted = decoded(members, [[5, 17, 3]])[0][0, :6].tolist()
    code, shown = run("--encoder", encoder, "--json")
    assert code == 0
    (found,) = json.loads(shown.out)
    end = found["tokens"].index(1) + 1 if 1 in found["tokens"] else 6  # both models end with 1
    assert found["tokens"] == wanted[:end]
    code, shown = run()
    assert code != 0
    assert "is the decoder of encoder-decoder models, and no encoder is given" in shown.err
    assert "hint: --encoder DIR" in shown.err


def changed(folder, where, change):
    """A copy of a bundle whose manifest says something else."""
    copy = shutil.copytree(folder, where)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def without_last(manifest):
    manifest["outputs"].pop()


def wider(manifest):
    manifest["outputs"][0]["shape"][3] = 16


def deeper(manifest):
    manifest["outputs"].append(manifest["outputs"][0] | {"name": f"{CROSS}t.2.key"})


def retrained(manifest):
    for source in manifest["sources"]:
        source["sha256"] = source["sha256"][::-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_last, f"takes '{CROSS}b.0.value', which the encoder"),
        (wider, r"gives 'cross_key_values.t.0.key' as float32\[batch, 2, source, 16\], and"),
        (deeper, f"gives '{CROSS}t.2.key', which the decoder"),
        (retrained, "member 'ensemble/t'|member 't'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(outcomes, tmp_path, change, message):
    encoder = changed(outcomes["encoder"].folder, tmp_path / "other", change)
    with pytest.raises(BundleError, match=message) as error:
        Generator(outcomes["decoder"].folder, encoder=encoder)
    assert error.value.hint == "export both with --part from one recipe"


def test_an_encoder_in_the_decoders_place_is_told_apart(outcomes):
    with pytest.raises(BundleError, match="is no decoder with caches") as error:
        Generator(outcomes["encoder"].folder)
    assert error.value.hint == (
        "it is an encoder: name the decoder first, and this one with --encoder"
    )


def test_one_recipe_says_the_shapes_of_both_parts(folder):
    assert set(plan_of(folder, "encoder").shapes) == {"batch", "source"}
    assert set(plan_of(folder, "decoder").shapes) == {
        "batch", "source", "sequence", "past_sequence",
    }  # fmt: skip
    recipe = folder / "recipe.yaml"
    assert publish_path(recipe, None, "encoder").name == "recipe-encoder"
    assert publish_path(recipe, None).name == "recipe"
