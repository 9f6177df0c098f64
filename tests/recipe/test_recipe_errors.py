"""Every mistake a recipe can hold: its place, its line, what was found and what was wanted."""

from __future__ import annotations

import pytest

from tests.recipe.text import DIGITS, read, refused

# Text of the recipe, message, hint; a message that ends in … is compared up to there.
MISTAKES = {
    "no model": ("seed: 1", "r.yaml:1: model: required key is missing", ""),
    "no kind": (
        "model: {cache: true}",
        (
            "r.yaml:1: model: found a mapping with 'cache', wanted exactly one of checkpoint, "
            "factory, "
            "onnx, merge, moe, soup, distill, ensemble, stack"
        ),
        "",
    ),
    "misspelt kind": (
        "model:\n  chekpoint: a",
        "r.yaml:1: model: found a mapping with 'chekpoint', wanted exactly one of …",
        "did you mean 'checkpoint'?",
    ),
    "two kinds": (
        "model:\n  checkpoint: a\n  onnx: b.onnx",
        "r.yaml:1: model: found the kinds checkpoint and onnx together, wanted exactly one of …",
        "",
    ),
    "no mapping": ("model: runs/a", "r.yaml:1: model: found 'runs/a', wanted a mapping with …", ""),
    "empty model": ("model:", "r.yaml:1: model: found nothing, wanted a mapping with …", ""),
    "unknown key": (
        "model: {checkpoint: a}\nseeed: 1",
        "r.yaml:2: seeed: unknown key",
        "did you mean 'seed'?",
    ),
    "unknown key with no near one": (
        "model: {checkpoint: a}\nexport: {zzz: 1}",
        "r.yaml:2: export.zzz: unknown key",
        "one of opset, precision, keep_float32, io, experts, silent_neurons, calibration",
    ),
    "key of another kind": (
        "model: {checkpoint: a, kwargs: {}}",
        "r.yaml:1: model.kwargs: unknown key",
        "one of name, rename, task, cache, checkpoint",
    ),
    "task": (
        "model: {checkpoint: a, task: masked-ml}",
        (
            "r.yaml:1: model.task: found 'masked-ml', wanted one of auto, sequence-classification, "
            "token-classification, masked-lm, causal-lm, seq2seq-lm, sentence-embedding"
        ),
        "did you mean 'masked-lm'?",
    ),
    "name": (
        "model: {checkpoint: a, name: my model!}",
        "r.yaml:1: model.name: found 'my model!', wanted letters, digits, '_', '.' and '-'",
        "for example 'my_model_'",
    ),
    "reserved name": (
        "model: {checkpoint: a, name: interpolation}",
        (
            "r.yaml:1: model.name: found 'interpolation', which is reserved or longer than 100 "
            "characters"
        ),
        "",
    ),
    "rename to one name": (
        "model: {checkpoint: a, rename: {x: ids, y: ids}}",
        "r.yaml:1: model.rename.y: gives 'y' the name 'ids', which 'x' has",
        "",
    ),
    "rename to no text": (
        "model: {checkpoint: a, rename: {x: 1}}",
        "r.yaml:1: model.rename.x: found 1, wanted text",
        "",
    ),
    "factory form": (
        "model: {factory: digits.Cnn, weights: w.safetensors}\ninputs: {x: 'float32[3]'}",
        "r.yaml:1: model.factory: found 'digits.Cnn', wanted package.module:callable",
        "the callable returns the torch.nn.Module that the weights belong to",
    ),
    "factory without weights": (
        "model: {factory: 'a:b'}\ninputs: {x: 'float32[3]'}",
        "r.yaml:1: model.weights: required key is missing",
        "",
    ),
    "factory without inputs": (
        "model: {factory: 'a:b', weights: w.safetensors}",
        (
            "r.yaml:1: inputs: required key is missing: model is a factory, whose inputs only the "
            "recipe can name"
        ),
        "for example inputs: {pixels: 'float32[batch, 1, 8, 8]'}",
    ),
    "kwargs of lists": (
        (
            "model: {factory: 'a:b', weights: w.safetensors, kwargs: {n: [1]}}\n"
            "inputs: {x: 'float32[3]'}"
        ),
        (
            "r.yaml:1: model.kwargs.n: found a list of 1, wanted true, false, a finite number, "
            "text "
            "or null"
        ),
        "",
    ),
    "kwargs not finite": (
        (
            "model: {factory: 'a:b', weights: w.safetensors, kwargs: {n: .inf}}\n"
            "inputs: {x: 'float32[3]'}"
        ),
        "r.yaml:1: model.kwargs.n: found inf, wanted true, false, a finite number, text or null",
        "",
    ),
    "no outputs": (
        "model: {factory: 'a:b', weights: w.safetensors, outputs: []}\ninputs: {x: 'float32[3]'}",
        "r.yaml:1: model.outputs: found an empty list, wanted at least one name",
        "",
    ),
    "outputs twice": (
        (
            "model: {factory: 'a:b', weights: w.safetensors, outputs: [y, y]}\n"
            "inputs: {x: 'float32[3]'}"
        ),
        "r.yaml:1: model.outputs[1]: the output name 'y' is given twice",
        "",
    ),
    "no members": (
        "model: {ensemble: {combine: linear, members: []}}",
        "r.yaml:1: model.ensemble.members: found an empty list, wanted at least one model",
        "",
    ),
    "members no list": (
        "model: {ensemble: {combine: linear, members: a}}",
        "r.yaml:1: model.ensemble.members: found 'a', wanted a list",
        "",
    ),
    "combine": (
        "model: {ensemble: {combine: log-linear, members: [{checkpoint: a}]}}",
        "r.yaml:1: model.ensemble.combine: found 'log-linear', wanted one of linear, log_linear",
        "did you mean 'log_linear'?",
    ),
    "input type": (
        "model: {checkpoint: a}\ninputs:\n  x: float32\nshapes: {}",
        "r.yaml:3: inputs.x.type: is 'float32', which is not of the form dtype[dim, dim]",
        "for example float32[batch, 1, 28, 28] or int64[batch, sequence]",
    ),
    "input dtype": (
        "model: {checkpoint: a}\ninputs:\n  x: {type: 'float31[3]'}",
        "r.yaml:3: inputs.x.type: has unknown dtype 'float31'",
        "one of float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool",
    ),
    "input no text": (
        "model: {checkpoint: a}\ninputs: {x: 3}",
        "r.yaml:2: inputs.x: found 3, wanted a mapping",
        "",
    ),
    "bounds": (
        "model: {checkpoint: a}\ninputs: {x: {type: 'int64[3]', low: 5, high: 5}}",
        "r.yaml:2: inputs.x: low 5 is not below high 5",
        "",
    ),
    "bounded mask": (
        "model: {checkpoint: a}\ninputs: {x: {type: 'int64[3]', low: 0, mask: true}}",
        "r.yaml:2: inputs.x: a mask holds 0 and 1, so it takes neither low nor high",
        "",
    ),
    "no range": (
        "model: {checkpoint: a}\ninputs: {x: 'int64[batch, sequence]'}\nshapes: {batch: 2}",
        "r.yaml:3: shapes: dimension 'sequence' of input 'x' has no range",
        "add sequence: [min, opt, max] or one number",
    ),
    "range of nothing": (
        "model: {checkpoint: a}\ninputs: {x: 'int64[batch, 3]'}\nshapes:\n  batch: 2\n  batches: 3",
        "r.yaml:5: shapes.batches: no input has this dimension",
        "did you mean 'batch'?",
    ),
    "range order": (
        "model: {checkpoint: a}\nshapes: {batch: [4, 1, 16]}",
        "r.yaml:2: shapes.batch: found [4, 1, 16], wanted 1 <= min <= opt <= max <= 2147483647",
        "",
    ),
    "range of zero": (
        "model: {checkpoint: a}\nshapes: {batch: 0}",
        "r.yaml:2: shapes.batch: found 0, wanted 1 <= min <= opt <= max <= 2147483647",
        "",
    ),
    "range of two": (
        "model: {checkpoint: a}\nshapes: {batch: [1, 16]}",
        "r.yaml:2: shapes.batch: found [1, 16], wanted [min, opt, max] or one whole number",
        "",
    ),
    "range of a fraction": (
        "model: {checkpoint: a}\nshapes: {batch: 1.5}",
        "r.yaml:2: shapes.batch: found 1.5, wanted [min, opt, max] or one whole number",
        "",
    ),
    "range of truth": (
        "model: {checkpoint: a}\nshapes: {batch: true}",
        "r.yaml:2: shapes.batch: found true, wanted [min, opt, max] or one whole number",
        "",
    ),
    "opset low": (
        "model: {checkpoint: a}\nexport: {opset: 17}",
        "r.yaml:2: export.opset: found 17, wanted at least 18",
        "",
    ),
    "opset high": (
        "model: {checkpoint: a}\nexport: {opset: 24}",
        "r.yaml:2: export.opset: found 24, wanted at most 23",
        "",
    ),
    "opset text": (
        "model: {checkpoint: a}\nexport: {opset: '20'}",
        "r.yaml:2: export.opset: found '20', wanted a whole number",
        "",
    ),
    "export no mapping": (
        "model: {checkpoint: a}\nexport: 20",
        "r.yaml:2: export: found 20, wanted a mapping",
        "",
    ),
    "export empty": (
        "model: {checkpoint: a}\nexport:",
        "r.yaml:2: export: found nothing, wanted a mapping",
        "",
    ),
    "pass": (
        "model: {checkpoint: a}\npasses: [{name: remove_unused_node}]",
        "r.yaml:2: passes[0].name: found 'remove_unused_node', wanted the name of a pass",
        "did you mean 'remove_unused_nodes'?",
    ),
    "pass that is a precision": (
        "model: {checkpoint: a}\npasses: [{name: mixed_precision}]",
        "r.yaml:2: passes[0].name: mixed_precision is no pass to list here",
        "say export: {precision: mixed_float16}, so that the proof knows of it",
    ),
    "precision of another runtime": (
        "model: {checkpoint: a}\ntarget: tensorrt\nexport: {precision: int8_weights}",
        "r.yaml:3: export.precision: int8_weights is ONNX Runtime's, found target: 'tensorrt'",
        "int8 and int4_weights are for TensorRT too",
    ),
    "precision of TensorRT": (
        "model: {checkpoint: a}\nexport: {precision: fp8}",
        "r.yaml:2: export.precision: fp8 is TensorRT's, found target: 'onnx'",
        "int8 is for ONNX Runtime too",
    ),
    "kept without mixed precision": (
        "model: {checkpoint: a}\nexport: {keep_float32: [head/*]}",
        "r.yaml:2: export.keep_float32: needs mixed precision, found 'float32'",
        "precision: mixed_float16 keeps some nodes in float32",
    ),
    "half inputs without mixed precision": (
        "model: {checkpoint: a}\nexport: {precision: float16, io: half}",
        "r.yaml:2: export.io: needs mixed precision, found 'float16'",
        "precision: mixed_float16 keeps some nodes in float32",
    ),
    "pass no mapping": (
        "model: {checkpoint: a}\npasses: [remove_unused_nodes]",
        "r.yaml:2: passes[0]: found 'remove_unused_nodes', wanted a mapping",
        "",
    ),
    "target": (
        "model: {checkpoint: a}\ntarget: tensorrt_rtx",
        "r.yaml:2: target: found 'tensorrt_rtx', wanted one of onnx, tensorrt-rtx, tensorrt",
        "did you mean 'tensorrt-rtx'?",
    ),
    "compute capability": (
        "model: {checkpoint: a}\nengine: {compute_capabilities: [sm_89]}",
        (
            "r.yaml:2: engine.compute_capabilities[0]: found 'sm_89', wanted a compute capability "
            "such as 8.9"
        ),
        "",
    ),
    "size without a unit we know": (
        "model: {checkpoint: a}\nengine: {memory: {workspace: 2 GB}}",
        "r.yaml:2: engine.memory.workspace: found '2 GB', wanted a size such as 512MiB",
        "",
    ),
    "switch that RTX lacks": (
        "model: {checkpoint: a}\ntarget: tensorrt-rtx\nengine: {version_compatible: true}",
        (
            "r.yaml:3: engine.version_compatible: found true, but TensorRT-RTX comes without the "
            "lean runtime that such a plan needs"
        ),
        "build with the version that will run the engine",
    ),
    "plugin for RTX": (
        "model: {checkpoint: a}\ntarget: tensorrt-rtx\nengine: {plugin: aot}",
        "r.yaml:3: engine.plugin: found 'aot', but TensorRT-RTX takes no plugins",
        "leave it out, and the operators' bodies run; or use the target tensorrt",
    ),
    "no cases": (
        "model: {checkpoint: a}\nparity: {cases: 0}",
        "r.yaml:2: parity.cases: found 0, wanted at least 1",
        "",
    ),
    "negative seed": (
        "model: {checkpoint: a}\nseed: -1",
        "r.yaml:2: seed: found -1, wanted at least 0",
        "",
    ),
    "seed of truth": (
        "model: {checkpoint: a}\nseed: true",
        "r.yaml:2: seed: found true, wanted a whole number",
        "",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(mistake):
    text, message, hint = MISTAKES[mistake]
    error = refused(text)
    if message.endswith("…"):
        assert error.message.startswith(message[:-1])
    else:
        assert error.message == message
    assert "\n" not in error.message
    assert error.hint == hint


def test_all_problems_are_told_at_once_in_the_order_of_the_file():
    error = refused(
        "model:\n"
        "  ensemble:\n"
        "    combine: linear\n"
        "    wieghts: [1]\n"
        "    weights: [0.5, 0.4]\n"
        "    members:\n"
        "      - checkpoint: ../a\n"
        "      - {factory: 'a:b', weights: /w.safetensors}\n"
        "shapes: {batch: [2, 1, 1]}\n"
        "target: onx\n",
        allow_code=False,
        root="/models",
    )
    inside = "paths are read against the recipe's folder and stay inside it; name another with"
    assert error.message.splitlines() == [
        "r.yaml has 8 problems:",
        (
            "  line 1: inputs: required key is missing: model.ensemble.members[1] is a "
            "factory, whose "
            "inputs only the recipe can name (for example inputs: {pixels: 'float32[batch, 1, "
            "8, 8]'})"
        ),
        "  line 4: model.ensemble.wieghts: unknown key (did you mean 'weights'?)",
        (
            "  line 5: model.ensemble.weights: weights sum to 0.9, wanted 1 (normalised: "
            "[0.555556, 0.444444])"
        ),
        (
            "  line 7: model.ensemble.members[0].checkpoint: '../a' leads out of /models to /a "
            f"({inside} --root)"
        ),
        (
            "  line 8: model.ensemble.members[1].factory: a:b is Python code that the recipe would "
            "run, which was not allowed (read that code, and give --allow-code if you trust it)"
        ),
        (
            "  line 8: model.ensemble.members[1].weights: found the absolute path "
            "'/w.safetensors', "
            f"wanted a relative one ({inside} --root)"
        ),
        "  line 9: shapes.batch: found [2, 1, 1], wanted 1 <= min <= opt <= max <= 2147483647",
        (
            "  line 10: target: found 'onx', wanted one of onnx, tensorrt-rtx, tensorrt (did "
            "you mean "
            "'onnx'?)"
        ),
    ]
    assert error.hint == ""


def test_a_broken_input_does_not_make_its_dimensions_look_unused():
    error = refused(
        "model: {checkpoint: a}\ninputs: {x: 'float32[batch'}\nshapes: {batch: 2}",
    )
    assert error.message.startswith("r.yaml:2: inputs.x.type: is 'float32[batch'")


def test_names_given_twice_are_refused_across_levels():
    error = refused(
        "model:\n"
        "  name: a\n"
        "  ensemble:\n"
        "    combine: linear\n"
        "    members:\n"
        "      - {checkpoint: x, name: a}\n"
    )
    assert error.message == (
        "r.yaml:6: model.ensemble.members[0].name: the name 'a' is given to model already"
    )
    assert "prefixes in the fused graph" in error.hint


def test_an_inner_ensemble_gives_what_the_outer_combines():
    error = refused(
        "model:\n"
        "  ensemble:\n"
        "    combine: linear\n"
        "    members:\n"
        "      - ensemble:\n"
        "          combine: linear\n"
        "          space: probabilities\n"
        "          members: [{checkpoint: a}]\n"
    )
    assert error.message.startswith(
        "r.yaml:7: model.ensemble.members[0].ensemble.space: found 'probabilities' inside an "
        "ensemble of 'logits', wanted the same"
    )


STACK_MISTAKES = {
    "one stage": (
        "{stages: [{onnx: a}], feeds: {x: {output: a/y, type: 'float32[3]'}}}",
        "r.yaml:1: model.stack.stages: found 1, wanted two or more",
    ),
    "no feeds": (
        "{stages: [{onnx: a}, {onnx: b}], feeds: {}}",
        "r.yaml:1: model.stack.feeds: found an empty mapping, wanted at least one feed",
    ),
    "no output of a stage": (
        "{stages: [{onnx: a}, {onnx: b}], feeds: {x: {output: logits, type: 'float32[3]'}}}",
        "r.yaml:1: model.stack.feeds.x.output: found 'logits', wanted stage/output",
    ),
    "no type": (
        "{stages: [{onnx: a}, {onnx: b}], feeds: {x: {output: a/y}}}",
        "r.yaml:1: model.stack.feeds.x.type: required key is missing",
    ),
    "a first factory without inputs": (
        (
            "{stages: [{factory: 'a:b', weights: w.safetensors}, {onnx: b}], "
            "feeds: {x: {output: b/y, type: 'float32[3]'}}}"
        ),
        (
            "r.yaml:1: inputs: required key is missing: model.stack.stages[0] is a factory, whose "
            "inputs only the recipe can name"
        ),
    ),
}


@pytest.mark.parametrize("mistake", STACK_MISTAKES)
def test_a_mistake_in_a_stack_is_told_where_it_is(mistake):
    text, message = STACK_MISTAKES[mistake]
    assert refused(f"model: {{stack: {text}}}").message == message


def test_a_fed_factory_needs_no_inputs_and_stages_count_as_levels():
    fed = "{factory: 'a:b', weights: w.safetensors}"
    feeds = "feeds: {x: {output: a/y, type: 'float32[3]'}}"
    text = f"{{stack: {{stages: [{{onnx: a.onnx}}, {fed}], {feeds}}}}}"
    assert [model.name for _, model in read(f"model: {text}").models()] == ["stack", "a", "b"]
    deep = text
    for _ in range(15):
        deep = f"{{stack: {{stages: [{{onnx: a.onnx}}, {deep}], {feeds}}}}}"
    assert "models are nested deeper than 16 levels" in refused(f"model: {deep}").message


def nested(levels: int) -> str:
    text = "{checkpoint: a}"
    for _ in range(levels - 1):
        text = f"{{ensemble: {{combine: linear, members: [{text}]}}}}"
    return f"model: {text}"


def test_models_nest_sixteen_levels_and_no_more():
    assert len(list(read(nested(16)).models())) == 16
    message = refused(nested(17)).message
    assert message.endswith("members[0]: models are nested deeper than 16 levels")


def test_code_needs_consent_and_the_error_says_why():
    error = refused(DIGITS, allow_code=False)
    assert error.message.splitlines()[1] == (
        "  line 6: model.ensemble.members[0].factory: digits.models:Cnn is Python code that the "
        "recipe would run, which was not allowed (read that code, and give --allow-code if you "
        "trust it)"
    )


def test_pickled_weights_are_refused_before_they_are_looked_for():
    error = refused(
        "model: {factory: 'a:b', weights: w.pt}\ninputs: {x: 'float32[3]'}", check_files=True
    )
    assert error.message == (
        "r.yaml:1: model.weights: 'w.pt' is a pickle, and loading a pickle runs whatever code it "
        "holds; safetensors was wanted"
    )
    assert 'in ["models/w.pt"]' in error.hint
    assert '"models/w.safetensors"' in error.hint
