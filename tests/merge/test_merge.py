"""Merging folders: the output, its completeness, and that it depends on nothing it should not."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import pytest
import yaml

from tests.merge.models import (
    CONFIG,
    family,
    from_bfloat16,
    save,
    save_file,
    shapes,
    to_bfloat16,
    weights,
)
from toolkit.checkpoint import open_checkpoint
from toolkit.errors import Interrupted, MergeError
from toolkit.merge import MergeOptions, merge, merge_state_dicts, plan

LINEAR = """
merge_method: linear
models:
- model: a
  parameters: {weight: 0.25}
- model: b
  parameters: {weight: 0.75}
"""
TIES = """
merge_method: ties
base_model: base
models:
- model: a
  parameters: {weight: 0.5, density: 0.4}
- model: b
  parameters: {weight: 0.5, density: 0.6}
"""
DARE = TIES.replace("ties", "dare_ties")
DELLA = TIES.replace("ties", "della")


@pytest.fixture
def folder(tmp_path):
    return family(tmp_path)


def config(folder, text):
    path = folder / "merge.yml"
    path.write_text(text)
    return path


def run(folder, text, out="out", **options):
    return merge(config(folder, text), folder / out, MergeOptions(**options))


def tensors(folder):
    checkpoint = open_checkpoint(folder)
    return {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix == ".safetensors"
    }


def nothing_is_left(folder):
    return not [p.name for p in folder.iterdir() if p.name == "out" or p.name.startswith(".")]


def test_a_merge_writes_a_model_folder(folder):
    report = run(folder, LINEAR)
    merged = tensors(folder / "out")
    assert list(merged) == list(shapes())
    expected = 0.25 * weights(1)["lm_head.weight"].astype(np.float64)
    expected += 0.75 * weights(2)["lm_head.weight"].astype(np.float64)
    assert np.array_equal(merged["lm_head.weight"], expected.astype(np.float32))
    assert json.loads((folder / "out" / "config.json").read_text()) == CONFIG
    names = {"README.md", "config.json", "manifest.json", "merge.json", "merge_config.yml"}
    assert {p.name for p in (folder / "out").iterdir()} == names | {"model.safetensors"}
    assert report.warnings == ()
    assert nothing_is_left(folder) is False
    assert not list(folder.glob(".*"))


def test_the_manifest_hashes_every_file_and_accounts_for_every_input_tensor(folder):
    run(folder, LINEAR)
    out = folder / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    for path in out.iterdir():
        if path.name != "manifest.json":
            record = manifest["files"][path.name]
            assert record["bytes"] == path.stat().st_size
            assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["tensors"] == {name: {"a": name, "b": name} for name in shapes()}
    assert manifest["unused"] == []


def test_the_manifest_knows_its_inputs_by_size_and_header(folder):
    run(folder, LINEAR)
    inputs = json.loads((folder / "out" / "manifest.json").read_text())["models"]
    for model in ("a", "b"):
        file = folder / model / "model.safetensors"
        content = file.read_bytes()
        header = content[: 8 + int.from_bytes(content[:8], "little")]
        assert inputs[model]["files"] == {
            file.name: {
                "bytes": len(content),
                "header_sha256": hashlib.sha256(header).hexdigest(),
            }
        }


def test_tensors_that_go_nowhere_are_in_the_manifest_with_the_reason(folder):
    sliced = """
merge_method: passthrough
base_model: base
slices:
- sources: [{model: a, layer_range: [0, 2]}]
"""
    run(folder, sliced)
    unused = json.loads((folder / "out" / "manifest.json").read_text())["unused"]
    reasons = {(entry["model"], entry["tensor"]): entry["reason"] for entry in unused}
    assert reasons["a", "model.layers.2.mlp.up_proj.weight"] == "in no slice"
    assert reasons["base", "model.norm.weight"] == "the model gives config and tokenizer only"
    assert len(unused) == 3 + len(shapes())


def test_the_written_config_merges_again_to_the_same_bytes(folder):
    run(folder, TIES.replace("density: 0.4", f"density: [0.2, {1}]"))
    again = (folder / "out" / "merge_config.yml").read_text()
    assert yaml.safe_load(again)["models"][0]["parameters"]["density"] == [0.2, 1]
    run(folder, again, "again")
    assert digests(folder / "out") == digests(folder / "again")


@pytest.mark.parametrize("text", [LINEAR, TIES, DARE, DELLA])
@pytest.mark.parametrize("half", [False, True])
def test_bytes_do_not_depend_on_threads_chunks_or_shards(tmp_path, text, half):
    folder = family(tmp_path, half=half)
    for name in ("base", "a", "b"):  # one tensor of several chunks
        rng = np.random.default_rng([5, ord(name[0])])
        big = np.ones((1, 1)) * np.random.default_rng(5).normal(size=(90, 110))
        big = big + 0.05 * rng.normal(size=big.shape)
        found = weights({"base": 0, "a": 1, "b": 2}[name]) | {"big.weight": big.astype(np.float32)}
        save(folder / name, {k: to_bfloat16(v) if half else v for k, v in found.items()})
    run(folder, text, "one", threads=1)
    run(folder, text, "two", threads=3, chunk=4096)
    run(folder, text, "three", threads=2, shard_bytes=8000)
    one, two, three = (tensors(folder / name) for name in ("one", "two", "three"))
    assert digests(folder / "one") == digests(folder / "two")
    assert len(digests(folder / "three")) >= 2
    for name, array in one.items():
        assert array.tobytes() == three[name].tobytes()
    assert one["big.weight"].tobytes() == two["big.weight"].tobytes()


def test_shards_have_an_index_that_transformers_reads(folder):
    run(folder, LINEAR, shard_bytes=5000)
    index = json.loads((folder / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(shapes())
    assert index["metadata"]["total_size"] == sum(4 * int(np.prod(s)) for s in shapes().values())
    count = len(set(index["weight_map"].values()))
    assert f"model-00001-of-{count:05d}.safetensors" in index["weight_map"].values()


@pytest.mark.parametrize("text", [LINEAR, TIES, DARE])
def test_state_dicts_in_memory_give_the_same_bytes(folder, text):
    run(folder, text)
    states = {name: weights(seed) for seed, name in enumerate(("base", "a", "b"))}
    merged = merge_state_dicts(yaml.safe_load(text), states)
    for name, array in tensors(folder / "out").items():
        assert array.tobytes() == merged[name].tobytes()


def test_bfloat16_inputs_give_bfloat16_rounded_once(tmp_path):
    folder = family(tmp_path, half=True)
    run(folder, LINEAR)
    merged = tensors(folder / "out")["lm_head.weight"]
    a, b = (from_bfloat16(to_bfloat16(weights(s)["lm_head.weight"])) for s in (1, 2))
    assert np.array_equal(merged, to_bfloat16(0.25 * a.astype(np.float64) + 0.75 * b))
    assert merged.dtype == np.uint16


@pytest.mark.parametrize(
    ("key", "dtype"), [("dtype: float16", "F16"), ("out_dtype: bfloat16\ndtype: float32", "BF16")]
)
def test_the_dtype_of_the_output_can_be_chosen(folder, key, dtype):
    run(folder, LINEAR + key)
    checkpoint = open_checkpoint(folder / "out")
    assert {entry.dtype for _, entry in checkpoint.tensors.values()} == {dtype}
    wanted = {"F16": "float16", "BF16": "bfloat16"}[dtype]
    assert checkpoint.config["torch_dtype"] == wanted


def test_a_plan_reads_headers_only_and_says_what_it_would_do(folder):
    for name in ("a", "b"):  # make the data unreadable as numbers
        path = folder / name / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-40:] = b"\xff" * 40
        path.write_bytes(content)
    told = plan(config(folder, LINEAR)).to_json(threads=2)
    assert told["tensors"] == len(shapes())
    assert told["bytes_written"] == sum(4 * int(np.prod(s)) for s in shapes().values())
    assert told["bytes_read"] == 2 * told["bytes_written"]
    assert told["memory_bound"] < 400e6
    assert told["outputs"][0]["method"] == "Linear(weights=(0.25, 0.75), relative=False)"
    assert nothing_is_left(folder)


def test_progress_counts_the_bytes_of_the_inputs(folder):
    seen = []
    merge(
        config(folder, TIES),
        folder / "out",
        MergeOptions(threads=1),
        lambda *told: seen.append(told),
    )
    total = 3 * sum(4 * int(np.prod(s)) for s in shapes().values())
    assert seen[-1] == ("merging", total, total)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_diagnostics_tell_norms_cosines_conflicts_and_branches(folder):
    run(folder, TIES)
    found = json.loads((folder / "out" / "merge.json").read_text())["tensors"]
    tensor = found["model.layers.0.mlp.up_proj.weight"]
    delta = weights(1)["model.layers.0.mlp.up_proj.weight"].astype(np.float64)
    delta = delta - weights(0)["model.layers.0.mlp.up_proj.weight"]
    assert tensor["norms"][0] == pytest.approx(np.linalg.norm(delta), rel=1e-5)
    assert tensor["kept"] == [pytest.approx(0.4, abs=0.01), pytest.approx(0.6, abs=0.01)]
    assert 0 < tensor["sign_conflicts"] < 1
    assert -1 <= tensor["cosines"][0] <= 1
    slerp = "merge_method: slerp\nbase_model: base\nmodels: [{model: a}]\nparameters: {t: 0.5}"
    run(folder, slerp, "slerped")
    found = json.loads((folder / "slerped" / "merge.json").read_text())["tensors"]
    assert found["model.norm.weight"]["branch"] in {"slerp", "linear"}
    assert "| tensors by branch: " in (folder / "slerped" / "README.md").read_text()


# Resuming and stopping.


def stopping_after(count):
    """A progress that presses Ctrl-C in the middle."""
    seen = []

    def progress(*told):
        seen.append(told)
        if len(seen) == count:
            raise KeyboardInterrupt

    return progress


def test_a_stopped_merge_leaves_no_output_and_resumes_to_the_same_bytes(folder):
    run(folder, DARE, "whole", threads=1, shard_bytes=3000)
    options = MergeOptions(threads=1, shard_bytes=3000)
    path = config(folder, DARE)
    with pytest.raises(Interrupted, match="--resume goes on"):
        merge(path, folder / "out", options, stopping_after(12))
    assert not (folder / "out").exists()
    partial = folder / ".out.merging"
    first = sorted(partial.glob("*.safetensors"))[0]
    before = first.stat().st_mtime_ns
    seen = []
    resumed = MergeOptions(threads=1, shard_bytes=3000, resume=True)
    merge(path, folder / "out", resumed, lambda *told: seen.append(told))
    assert digests(folder / "out") == digests(folder / "whole")
    assert (folder / "out" / first.name).stat().st_mtime_ns == before  # it was not written again
    assert seen[-1][2] < 3 * sum(4 * int(np.prod(s)) for s in shapes().values())
    assert not partial.exists()
    whole, found = (
        json.loads((folder / name / "merge.json").read_text()) for name in ("whole", "out")
    )
    assert found == whole


def test_a_merge_of_something_else_is_not_resumed(folder):
    options = MergeOptions(threads=1, shard_bytes=3000)
    with pytest.raises(Interrupted, match="--resume goes on"):
        merge(config(folder, DARE), folder / "out", options, stopping_after(12))
    with pytest.raises(MergeError, match="inputs, config or options have changed since"):
        run(folder, TIES, threads=1, shard_bytes=3000, resume=True)


def test_without_resume_a_stopped_merge_starts_again(folder):
    with pytest.raises(Interrupted, match="--resume goes on"):
        merge(
            config(folder, DARE), folder / "out", MergeOptions(threads=1, shard_bytes=3000),
            stopping_after(12),
        )  # fmt: skip
    run(folder, LINEAR)
    assert not (folder / ".out.merging").exists()


def test_an_error_leaves_nothing(folder):
    bad = weights(2)
    bad["lm_head.weight"][-1, -1] = np.nan
    save(folder / "b", bad)
    with pytest.raises(MergeError, match=r"b: tensor 'lm_head.weight' holds NaN or Inf at"):
        run(folder, LINEAR, shard_bytes=3000)
    assert nothing_is_left(folder)


def test_folders_made_for_the_output_are_removed_after_an_error(folder):
    bad = weights(2)
    bad["lm_head.weight"][0, 0] = np.inf
    save(folder / "b", bad)
    with pytest.raises(MergeError, match="holds NaN or Inf"):
        run(folder, LINEAR, "new/deep/out")
    assert not (folder / "new").exists()


def test_two_merges_do_not_write_one_output(folder):
    started, go_on = threading.Event(), threading.Event()

    def wait(*_told):
        started.set()
        assert go_on.wait(20)

    path, out = config(folder, LINEAR), folder / "out"
    first = threading.Thread(target=merge, args=(path, out, MergeOptions(threads=1), wait))
    first.start()
    assert started.wait(20)
    with pytest.raises(MergeError, match="another merge is writing"):
        merge(path, out)
    go_on.set()
    first.join()
    assert (out / "manifest.json").exists()


def test_an_existing_output_is_replaced_only_if_it_is_a_merge_and_forced(folder):
    run(folder, LINEAR)
    with pytest.raises(MergeError, match="exists and is an earlier merge") as caught:
        run(folder, TIES)
    assert caught.value.hint == "give --force to replace it"
    run(folder, TIES, force=True)
    assert json.loads((folder / "out" / "merge.json").read_text())["method"] == "ties"
    with pytest.raises(MergeError, match="exists and is a folder with other files"):
        run(folder, LINEAR, "a", force=True)
    (folder / "file").write_text("")
    with pytest.raises(MergeError, match="exists and is a file"):
        run(folder, LINEAR, "file", force=True)


def paper_ties(density):
    """TIES of a and b, weight 1 each, trimmed over all tensors at once."""
    base, *models = (weights(seed) for seed in range(3))
    deltas = [
        np.concatenate([(m[n] - base[n]).reshape(-1) for n in shapes()]) for m in models
    ]  # fmt: skip
    for delta in deltas:
        keep = np.argsort(-np.abs(delta), kind="stable")[: int(density * delta.size)]
        mask = np.zeros(delta.size, bool)
        mask[keep] = True
        delta[~mask] = 0
    wide = np.array(deltas, np.float64)
    agrees = np.sign(wide) == np.where(wide.sum(0) >= 0, 1, -1)
    change = (wide * agrees).sum(0) / np.maximum(agrees.sum(0), 1)
    return np.concatenate([base[n].reshape(-1) for n in shapes()]) + change


@pytest.mark.parametrize("threads", [1, 3])
def test_ties_can_trim_over_the_whole_model_as_its_paper_does(folder, threads):
    text = TIES.replace("weight: 0.5, density: 0.4", "weight: 1, density: 0.3")
    text = text.replace("weight: 0.5, density: 0.6", "weight: 1, density: 0.3")
    run(folder, text + "parameters: {trim: model}", threads=threads)
    merged = np.concatenate([tensors(folder / "out")[n].reshape(-1) for n in shapes()])
    assert np.allclose(merged, paper_ties(0.3), rtol=1e-6, atol=1e-7)
    states = {name: weights(seed) for seed, name in enumerate(("base", "a", "b"))}
    again = merge_state_dicts(yaml.safe_load(text + "parameters: {trim: model}"), states)
    assert np.array_equal(merged, np.concatenate([again[n].reshape(-1) for n in shapes()]))


def test_equal_magnitudes_over_the_whole_model_are_kept_in_order(tmp_path):
    for name, value in (("base", 0.0), ("a", 1.0)):
        found = {n: np.full(s, value, np.float32) for n, s in shapes().items()}
        save(tmp_path / name, found)
    text = "merge_method: ties\nbase_model: base\nparameters: {trim: model}\nmodels:\n"
    run(tmp_path, text + "- {model: a, parameters: {weight: 1, density: 0.5}}", threads=3)
    merged = np.concatenate([tensors(tmp_path / "out")[n].reshape(-1) for n in shapes()])
    assert np.array_equal(merged, np.arange(merged.size) < merged.size // 2)


# Other sources.


def test_merges_of_several_documents_use_each_other(folder):
    text = LINEAR + "name: first\n---\nname: second\n" + LINEAR.replace("model: a", "model: base")
    text += (
        "---\nmerge_method: slerp\nbase_model: first\nmodels: [{model: second}]\n"
        "parameters: {t: 0.5}\n"
    )
    assert plan(config(folder, text)).method == "slerp"
    run(folder, text)
    states = {name: weights(seed) for seed, name in enumerate(("base", "a", "b"))}
    documents = list(yaml.safe_load_all(text))
    for document in documents[:2]:
        name = document.pop("name")
        states[name] = merge_state_dicts(document, states)
    expected = merge_state_dicts(documents[2], states)
    for name, array in tensors(folder / "out").items():
        assert array.tobytes() == expected[name].tobytes()
    assert [p.name for p in (folder / "out").iterdir() if p.is_dir()] == []


def test_documents_can_be_made_of_single_files(tmp_path):
    for seed, name in enumerate(("a", "b", "c")):
        save_file(tmp_path / f"{name}.safetensors", weights(seed))
    text = LINEAR.replace("model: a", "model: a.safetensors").replace("model: b", "model: first")
    first = "merge_method: uniform_soup\nname: first\n"
    first += "models: [{model: b.safetensors}, {model: c.safetensors}]\n---"
    run(tmp_path, first + text, shard_bytes=4000)
    assert "config.json" not in {p.name for p in (tmp_path / "out").iterdir()}


def adapter(folder, rank=4, **options):
    folder.mkdir()
    rng = np.random.default_rng(9)
    target = "model.layers.1.self_attn.q_proj"
    down = rng.normal(size=(rank, 16)).astype(np.float32)
    up = (0.05 * rng.normal(size=(16, rank))).astype(np.float32)
    prefix = f"base_model.model.{target}"
    save_file(
        folder / "adapter_model.safetensors",
        {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up},
    )
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, **options}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return f"{target}.weight", up, down


@pytest.mark.parametrize(("options", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_an_adapter_is_added_to_its_base(folder, options, scale):
    name, up, down = adapter(folder / "lora", **options)
    run(folder, "merge_method: passthrough\nmodels: [{model: base+lora}]")
    merged = tensors(folder / "out")
    expected = weights(0)[name] + scale * up.astype(np.float64) @ down
    assert np.allclose(merged[name], expected, rtol=1e-6)
    other = "model.layers.0.self_attn.q_proj.weight"
    assert np.array_equal(merged[other], weights(0)[other])


def test_a_tied_head_stays_tied(tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        found = weights(seed)
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
        save(tmp_path / name, found, tie_word_embeddings=True)
    run(tmp_path, DARE)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert "lm_head.weight" not in checkpoint.tensors
    assert checkpoint.config["tie_word_embeddings"] is True
    unused = json.loads((tmp_path / "out" / "manifest.json").read_text())["unused"]
    assert {u["reason"] for u in unused} == {"tied to model.embed_tokens.weight"}


def test_a_tied_model_merges_with_an_untied_one(tmp_path):
    family(tmp_path)
    tied = weights(1)
    del tied["lm_head.weight"]
    save(tmp_path / "a", tied, tie_word_embeddings=True)
    run(tmp_path, LINEAR)
    merged = tensors(tmp_path / "out")
    expected = 0.25 * tied["model.embed_tokens.weight"].astype(np.float64)
    expected += 0.75 * weights(2)["lm_head.weight"].astype(np.float64)
    assert np.array_equal(merged["lm_head.weight"], expected.astype(np.float32))
    assert open_checkpoint(tmp_path / "out").config["tie_word_embeddings"] is False


def test_fisher_weighs_each_element(folder):
    rng = np.random.default_rng(4)
    for name in ("a", "b"):
        diagonal = {n: rng.random(s).astype(np.float32) for n, s in shapes().items()}
        save_file(folder / f"fisher-{name}.safetensors", diagonal)
    text = "merge_method: fisher\nmodels:\n"
    for name in ("a", "b"):
        text += f"- {{model: {name}, parameters: {{fisher: fisher-{name}.safetensors}}}}\n"
    run(folder, text)
    name = "lm_head.weight"
    checkpoints = [open_checkpoint(folder / f"fisher-{n}.safetensors") for n in ("a", "b")]
    f, g = (np.array(c.read(name), np.float64) + 1e-10 for c in checkpoints)
    expected = (f * weights(1)[name] + g * weights(2)[name]) / (f + g)
    assert np.allclose(tensors(folder / "out")[name], expected, rtol=1e-6)


def test_whole_numbers_are_copied_if_they_agree(folder):
    for seed, name in enumerate(("base", "a", "b")):
        save(folder / name, weights(seed) | {"steps": np.arange(5), "one": np.float32(seed)[None]})
    run(folder, LINEAR)
    assert tensors(folder / "out")["steps"].tolist() == [0, 1, 2, 3, 4]
    save(folder / "b", weights(2) | {"steps": np.arange(1, 6), "one": np.zeros(1, np.float32)})
    with pytest.raises(MergeError, match="'steps' holds whole numbers"):
        run(folder, LINEAR, "again")


def test_the_chat_template_is_set_by_name_text_or_majority(folder):
    for name in ("base", "a", "b"):
        (folder / name / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    run(folder, LINEAR + "chat_template: chatml")
    assert "<|im_start|>" in (folder / "out" / "chat_template.jinja").read_text()
    assert "chat_template" not in json.loads((folder / "out" / "tokenizer_config.json").read_text())
    for name, text in (("base", "{{ messages }} common"), ("a", "{{ messages }} rare"),
                       ("b", "{{ messages }} common")):  # fmt: skip
        (folder / name / "chat_template.jinja").write_text(text)
    run(folder, TIES + "chat_template: auto", "auto")
    assert (folder / "auto" / "chat_template.jinja").read_text() == "{{ messages }} common"
    with pytest.raises(MergeError, match="neither a template nor a known name"):
        run(folder, LINEAR + "chat_template: chatlm", "wrong")
