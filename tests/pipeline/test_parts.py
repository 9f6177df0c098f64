"""What cannot be meant with encoder-decoder models is refused before any weight is read."""

from __future__ import annotations

import pytest

from tests.graphs.models import write
from tests.workshop import write_huggingface, write_recipe
from toolkit.errors import RecipeError
from toolkit.pipeline import make_plan
from toolkit.recipe import load_recipe

PLAIN = """
<ir_version: 10, opset_import: ["" : 20]>
plain (float[batch, 3] x) => (float[batch, 3] y) { y = Neg (x) }
"""
PAIR = "model: {{ensemble: {{combine: linear, members: [{{checkpoint: t}}, {{checkpoint: {}}}]}}}}"
SOUP = "model: {soup: {perplexity: x.txt, members: [{checkpoint: t}, {checkpoint: t, name: u}]}}"
STACK = """model:
  stack:
    stages: [{checkpoint: t}, {checkpoint: b, rename: {attention_mask: heard}}]
    feeds: {heard: {output: t/logits, type: "int64[batch, source]"}}"""

REFUSALS = {
    "no part": (
        "model: {checkpoint: t}",
        (
            "'t' is an encoder-decoder model, which becomes two graphs, and it is not said "
            "which is wanted"
        ),
        "part: encoder or part: decoder beside model:, or --part for both in turn",
    ),
    "cache": (
        "model: {checkpoint: t, cache: true}\npart: decoder",
        "'t' is to have a cache, but its task is seq2seq-lm",
        "its decoder has caches anyway: leave cache out",
    ),
    "causal member": (
        PAIR.format("causal") + "\npart: decoder",
        (
            "the recipe asks for part: decoder, and 'causal' is no encoder-decoder model: its "
            "task is causal-lm"
        ),
        "leave part out, or name encoder-decoder models only",
    ),
    "other vocabulary": (
        PAIR.format("small") + "\npart: decoder",
        (
            "encoder-decoder members 't' and 'small' share the input 'decoder_input_ids', but "
            "their vocabularies differ (97 and 90 ids)"
        ),
        "give them one tokenizer.json; only causal and masked models are translated",
    ),
    "other vocabulary to read": (
        PAIR.format("small") + "\npart: encoder",
        (
            "encoder-decoder members 't' and 'small' share the input 'input_ids', but their "
            "vocabularies differ (97 and 90 ids)"
        ),
        "give them one tokenizer.json; only causal and masked models are translated",
    ),
    "soup": (
        SOUP + "\npart: decoder",
        "soup 'soup' has the encoder-decoder model 't', which no score here can rate",
        "merge: with merge_method: linear averages without a score",
    ),
    "stack": (
        STACK + "\npart: decoder",
        "a stage of 'stack' has caches (past_key_values.0.key), and a stack has none",
        "leave cache: true or part out: stages read whole sequences",
    ),
    "other file": (
        "model: {onnx: a.onnx}\npart: encoder",
        "the recipe asks for part: encoder, and 'a' gives no cross_key_values.…",
        "leave part out, or name encoder-decoder models only",
    ),
    "renamed cache": (
        (
            "model: {ensemble: {combine: linear, members: [{checkpoint: t, "
            "rename: {cross_key_values.0.key: k}}]}}\npart: decoder"
        ),
        "member 't' renames 'cross_key_values.0.key', a cache, which belongs to it alone",
        "leave it out: in the ensemble it is called cross_key_values.t.0.key",
    ),
    "positions": (
        "model: {checkpoint: b}\npart: encoder\nshapes: {source: [1, 8, 41]}",
        "shapes.source reaches 41, but 'b' has 40 positions",
        "source: [1, 40, 40]",
    ),
    "past positions": (
        "model: {checkpoint: b}\npart: decoder\nshapes: {past_sequence: [0, 8, 40]}",
        "shapes.past_sequence + sequence reaches 56, but 'b' has 40 positions",
        "sequence: [1, 40, 40]",
    ),
    "unknown dimension": (
        "model: {checkpoint: t}\npart: encoder\nshapes: {sauce: [1, 8, 41]}",
        "shapes: no input has this dimension",
        "did you mean 'source'?",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("parts")
    for name, kind, changes in (
        ("t", "t5", {}), ("b", "bart", {}), ("small", "t5", {"vocab_size": 90}),
        ("causal", "llama", {}),
    ):  # fmt: skip
        write_huggingface(made / name, kind, **changes)
    (made / "x.txt").write_text("w1 w2")
    write(made / "a.onnx", PLAIN)
    return made


@pytest.mark.parametrize(("text", "message", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_a_recipe_that_cannot_be_meant_is_refused(folder, text, message, hint):
    with pytest.raises(RecipeError) as caught:
        make_plan(load_recipe(write_recipe(folder, text)), folder)
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_a_merge_of_encoder_decoders_has_both_parts(folder):
    text = """
model:
  merge: {{merge_method: linear, models: [{{model: t, parameters: {{weight: 1}}}}]}}
part: {}
"""
    names = []
    for part in ("encoder", "decoder"):
        plan = make_plan(load_recipe(write_recipe(folder, text.format(part))), folder)
        names.append((plan.root.outputs[0], plan.inputs[0].name))
    assert names == [("cross_key_values.0.key", "input_ids"), ("logits", "decoder_input_ids")]
