"""Mixtures of fine-tunes: what the written model computes, and that it depends on nothing else."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.merge.dense import dense, fine_tune, load, logits
from tests.merge.test_merge import digests, stopping_after
from toolkit.errors import Interrupted, MergeError
from toolkit.merge import MergeOptions, merge, plan
from toolkit.merge.moe import from_mapping

pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
# Whatever of a base changes its numbers and must survive: positions, windows, ties, biases.
BASES = {
    "llama": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": 4}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 of another head size": ("qwen2", {"head_dim": 16}),
    "qwen2 with windows": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"rms_norm_eps": 1e-3}),
}  # fmt: skip
IDS = torch.arange(2, 26).reshape(2, 12)
PROMPTS = ("sum product proof", "rhyme verse", "loop class")


def family(folder, kind="llama", names=("a", "b", "c"), **changes):
    dense(folder / "base", kind, **changes)
    for seed, name in enumerate(names, 1):
        fine_tune(folder / "base", folder / name, seed)
    return folder


def make(folder, out="out", options=None, **config):
    if "experts" not in config:
        config["experts"] = [
            {"source_model": name, "positive_prompts": [prompt]}
            for name, prompt in zip("abc", PROMPTS, strict=True)
        ]
    path = folder / "moe.yml"
    path.write_text(yaml.safe_dump({"base_model": "base", **config}))
    return merge(path, folder / out, MergeOptions(**(options or {})))


def three_of(model, **settings):
    return [{"source_model": model, **settings}] * 3


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_experts_that_are_the_base_make_the_base_whatever_the_router_says(tmp_path, base, k):
    kind, changes = BASES[base]
    dense(tmp_path / "base", kind, **changes)
    mode = {"gate_mode": "uniform_random" if k == 2 else "random", "experts_per_token": k}
    report = make(tmp_path, experts=three_of("base"), **mode)
    assert "computes what the dense model does" in report.warnings[0]
    expected = logits(tmp_path / "base", IDS)
    # A mixture adds up k weighted copies of one result: a few roundings of float32.
    assert (logits(tmp_path / "out", IDS) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_each_expert_computes_what_its_model_has_there(tmp_path, kind):
    family(tmp_path, kind)
    make(tmp_path, gate_mode="random", experts_per_token=1)
    model = load(tmp_path / "out")
    for number, name in enumerate("abc"):
        state = load_file(tmp_path / "base" / "model.safetensors")
        own = load_file(tmp_path / name / "model.safetensors")
        state |= {key: value for key, value in own.items() if ".mlp." in key}
        save_file(state, tmp_path / name / "model.safetensors", metadata={"format": "pt"})

        def only(_module, _inputs, output, number=number):
            return output[0], torch.ones_like(output[1]), torch.full_like(output[2], number)

        hooks = [layer.mlp.gate.register_forward_hook(only) for layer in model.model.layers]
        with torch.inference_mode():
            found = model(IDS).logits
        for hook in hooks:
            hook.remove()
        expected = logits(tmp_path / name, IDS)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def chosen(folder, prompt):
    """The expert each layer chooses at the last token of a prompt."""
    from tokenizers import Tokenizer

    model, found = load(folder), []
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda _m, _i, output: found.append(output[2][-1]))
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("<s>" + prompt).ids
    with torch.inference_mode():
        model(torch.tensor([ids]))
    return [int(expert) for expert in torch.cat(found)]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_every_layer_sends_a_prompt_to_its_expert(tmp_path, kind):
    family(tmp_path, kind)
    make(tmp_path, experts_per_token=1)
    for number, prompt in enumerate(PROMPTS):
        assert chosen(tmp_path / "out", prompt) == [number] * 3


def test_states_that_enter_the_layer_point_elsewhere_than_what_the_router_sees(tmp_path):
    dense(tmp_path / "base", "llama", num_hidden_layers=6)
    prompts = (*PROMPTS, "story", "x x sum", "verse story loop", "class proof", "product rhyme")
    for seed, _ in enumerate(prompts):
        fine_tune(tmp_path / "base", tmp_path / f"m{seed}", seed, 0.02)
    experts = [{"source_model": f"m{n}", "positive_prompts": [p]} for n, p in enumerate(prompts)]
    right = {}
    for state in ("router_input", "layer_input"):
        make(tmp_path, state, experts=experts, gate_state=state, experts_per_token=1)
        found = [chosen(tmp_path / state, prompt) for prompt in prompts]
        right[state] = sum(row.count(number) for number, row in enumerate(found))
    assert right["router_input"] == 48
    assert right["layer_input"] < 46


def test_negative_prompts_turn_the_router_away(tmp_path):
    family(tmp_path)
    experts = [
        {"source_model": "a", "positive_prompts": ["sum"], "negative_prompts": ["rhyme"]},
        {"source_model": "b", "positive_prompts": ["rhyme"], "negative_prompts": ["sum"]},
    ]
    make(tmp_path, experts=experts, experts_per_token=1)
    rows = load_file(tmp_path / "out" / "model.safetensors")
    for layer in range(3):
        gate = rows[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
        torch.testing.assert_close(gate[0], -gate[1])
        torch.testing.assert_close(gate.norm(dim=1), torch.ones(2))


def test_the_mean_over_tokens_and_embeddings_are_what_they_are_called(tmp_path):
    family(tmp_path)
    one = {"experts": [{"source_model": "a", "positive_prompts": ["sum proof"]}]}
    make(tmp_path, "embedded", gate_mode="cheap_embed", experts_per_token=1, **one)
    make(tmp_path, "mean", gate_mode="hidden_avg", experts_per_token=1, **one)
    state = load_file(tmp_path / "base" / "model.safetensors")
    rows = state["model.embed_tokens.weight"][[0, 2, 4]].double()  # <s> sum proof
    expected = torch.nn.functional.normalize(rows.sum(0), dim=0).float()
    gate = "model.layers.{}.block_sparse_moe.gate.weight"
    for layer in range(3):
        found = load_file(tmp_path / "embedded" / "model.safetensors")[gate.format(layer)]
        torch.testing.assert_close(found[0], expected)
    base, seen = load(tmp_path / "base"), []
    norm = base.model.layers[2].post_attention_layernorm
    norm.register_forward_hook(lambda _m, _i, output: seen.append(output[0]))
    with torch.inference_mode():
        base(torch.tensor([[0, 2, 4]]))
    expected = torch.nn.functional.normalize(seen[0].double().mean(0), dim=0).float()
    found = load_file(tmp_path / "mean" / "model.safetensors")[gate.format(2)]
    torch.testing.assert_close(found[0], expected)


def test_the_same_seed_gives_the_same_bytes_and_another_only_other_routers(tmp_path):
    family(tmp_path)
    for out, options in {
        "one": {"seed": 1}, "again": {"seed": 1, "threads": 1, "chunk": 4096}, "two": {"seed": 2}
    }.items():  # fmt: skip
        make(tmp_path, out, options, gate_mode="random")
    assert digest(tmp_path / "one") == digest(tmp_path / "again")
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in ("one", "two"))
    differ = {name for name in one if not torch.equal(one[name], two[name])}
    assert differ == {name for name in one if name.endswith("moe.gate.weight")}
    assert len(differ) == 3


def test_a_stopped_mixture_goes_on_unless_its_prompts_have_changed(tmp_path):
    family(tmp_path)
    whole = make(tmp_path, "whole", {"threads": 1, "shard_bytes": 30_000})
    path, small = tmp_path / "moe.yml", {"threads": 1, "shard_bytes": 30_000}
    with pytest.raises(Interrupted, match="--resume goes on"):
        merge(path, tmp_path / "out", MergeOptions(**small), stopping_after(40))
    text = path.read_text()
    path.write_text(text.replace("rhyme verse", "rhyme story"))
    with pytest.raises(MergeError, match="inputs, config or options have changed since"):
        merge(path, tmp_path / "out", MergeOptions(**small, resume=True))
    with pytest.raises(Interrupted, match="--resume goes on"):
        merge(path, tmp_path / "out", MergeOptions(**small), stopping_after(40))
    merge(path, tmp_path / "out", MergeOptions(**small, resume=True))
    path.write_text(text)
    merge(path, tmp_path / "again", MergeOptions(**small))
    assert digests(tmp_path / "again") == digests(whole.out)
    assert digests(tmp_path / "out").keys() == digests(whole.out).keys()
    assert digests(tmp_path / "out") != digests(whole.out)


def test_noise_is_of_the_size_asked_for_and_experts_of_one_model_differ(tmp_path):
    dense(tmp_path / "base", "llama", intermediate_size=512)
    for out, options in {"one": {}, "again": {"chunk": 4096}}.items():
        make(tmp_path, out, options, gate_mode="random",
             experts=three_of("base", noise_scale=0.05, residual_scale=0.5))  # fmt: skip
    assert digest(tmp_path / "one") == digest(tmp_path / "again")
    found = load_file(tmp_path / "one" / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    place = "model.layers.1.block_sparse_moe.experts.{}.{}.weight"
    for theirs, ours, scale in (("up", "w3", 1.0), ("down", "w2", 0.5)):
        dense_weight = base[f"model.layers.1.mlp.{theirs}_proj.weight"]
        noise = [found[place.format(e, ours)] - scale * dense_weight for e in range(3)]
        assert all(abs(n.std() / (0.05 * scale) - 1) < 0.03 for n in noise)
        assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]) < 0.05


def test_an_adapter_makes_an_expert_and_no_base_that_reads_prompts(tmp_path):
    family(tmp_path)
    (tmp_path / "lora").mkdir()
    target = "model.layers.1.mlp.up_proj"
    up, down = torch.randn(48, 2), torch.randn(2, 32)
    save_file(
        {f"base_model.model.{target}.lora_{n}.weight": t for n, t in (("A", down), ("B", up))},
        tmp_path / "lora" / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    experts = [{"source_model": "base+lora"}, {"source_model": "base"}]
    make(tmp_path, gate_mode="random", experts=experts, options={"force": True})
    found = load_file(tmp_path / "out" / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")[f"{target}.weight"]
    place = "model.layers.1.block_sparse_moe.experts.{}.w3.weight"
    torch.testing.assert_close(found[place.format(0)], base + up @ down, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[place.format(1)], base)
    with pytest.raises(MergeError, match="hidden states are those of a folder"):
        make(tmp_path, "refused", base_model="base+lora")


def test_what_stands_beside_the_weights(tmp_path):
    family(tmp_path)
    report = make(tmp_path, gate_mode="random", dtype="bfloat16")
    out = tmp_path / "out"
    config = json.loads((out / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["MixtralForCausalLM"], "bfloat16")
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "base/tokenizer.json").read_bytes()
    written = yaml.safe_load((out / "merge_config.yml").read_text())
    assert from_mapping(written) == from_mapping(yaml.safe_load((tmp_path / "moe.yml").read_text()))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["method"] == report.plan.method == "moe"
    used = {(m, n) for sources in manifest["tensors"].values() for m, n in sources.items()}
    unused = {(u["model"], u["tensor"]) for u in manifest["unused"]}
    for name in ("base", "a", "b", "c"):
        for tensor in load_file(tmp_path / name / "model.safetensors"):
            assert ((name, tensor) in used) != ((name, tensor) in unused)
    assert "tags: [merge, moe]" in (out / "README.md").read_text()
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


def test_older_spellings_of_a_config_are_kept_for_older_readers(tmp_path):
    dense(tmp_path / "base", "llama")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["dtype"], config["rms_norm_eps"], config["hidden_act"]
    path.write_text(json.dumps(config | {"rope_theta": 777.0, "torch_dtype": "float32"}))
    fine_tune(tmp_path / "base", tmp_path / "a", 1)
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"hidden_act": "silu"}))
    make(tmp_path, "other", gate_mode="random", experts=[{"source_model": "a"}] * 2)
    make(tmp_path, gate_mode="random", experts=three_of("base"))
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (found["rope_theta"], found["torch_dtype"]) == (777.0, "float32")
    # Llama's own default, where Mixtral's would be 1e-5.
    assert found["rms_norm_eps"] == 1e-6
    difference = logits(tmp_path / "out", IDS) - logits(tmp_path / "base", IDS)
    assert difference.abs().max() < 1e-4


def test_the_plan_reads_no_weight_and_is_what_is_made(tmp_path):
    family(tmp_path)
    report = make(tmp_path)
    planned = plan(tmp_path / "moe.yml")
    assert [o.name for o in planned.outputs] == [o.name for o in report.plan.outputs]
    assert planned.nbytes == report.plan.nbytes


def test_what_is_not_taken_is_told_with_how_far_it_is(tmp_path):
    dense(tmp_path / "base", "llama")
    fine_tune(tmp_path / "base", tmp_path / "a", 1, 0.02)
    fine_tune(tmp_path / "base", tmp_path / "b", 2, 0.3, only=".mlp.")
    experts = [{"source_model": name} for name in "ab"]
    report = make(tmp_path, gate_mode="random", experts=experts)
    (warning,) = report.warnings
    assert "attention, norms and embeddings of a are not taken" in warning
    share = float(warning.partition("base's by ")[2].partition("%")[0])
    assert share == pytest.approx(2, rel=0.1)
    assert warning in json.loads((tmp_path / "out" / "merge.json").read_text())["warnings"]


def test_prompts_that_are_alike_are_told(tmp_path):
    family(tmp_path)
    words = "sum product proof rhyme verse story loop class"
    experts = [
        {"source_model": "a", "positive_prompts": [f"{words} x"]},
        {"source_model": "b", "positive_prompts": [f"sum {words} x"]},
    ]
    report = make(tmp_path, gate_mode="cheap_embed", experts=experts)
    assert "in 3 of 3 layers the gate's rows are nearly alike" in report.warnings[-1]
    assert "prompts are not read" in make(tmp_path, "random", gate_mode="random").warnings[0]


def test_a_shared_expert_without_prompts_is_added_by_half(tmp_path):
    family(tmp_path, "qwen2")
    make(tmp_path, shared_experts=[{"source_model": "base", "residual_scale": 0.5}])
    found = load_file(tmp_path / "out" / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    place = "model.layers.1.mlp."
    assert np.all(found[f"{place}shared_expert_gate.weight"].numpy() == 0)
    shared = found[f"{place}shared_expert.down_proj.weight"]
    assert torch.equal(shared, 0.5 * base[f"{place}down_proj.weight"])
    assert torch.equal(
        found[f"{place}shared_expert.up_proj.weight"], base[f"{place}up_proj.weight"]
    )
