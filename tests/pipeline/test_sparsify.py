"""toolkit sparsify: what is written, what it costs, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import write_huggingface
from toolkit.checkpoint import open_checkpoint
from toolkit.errors import BundleError, MergeError, RecipeError
from toolkit.inspection import inspect_zeros
from toolkit.pipeline import SparseOptions, SparseSource, sparsify
from toolkit.sparse import Pattern, check_pattern, magnitude, second_order, wanda

TWO = Pattern(2, 4)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    random = np.random.default_rng(0)
    rows = [random.integers(1, 97, size=int(n)).tolist() for n in random.integers(8, 30, size=12)]
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def dense(request, tmp_path_factory):
    return write_huggingface(tmp_path_factory.mktemp(request.param) / "dense", request.param)


def options(method, texts, **more):
    calibration = None if method == "magnitude" else texts
    return SparseOptions(TWO, method, calibration, **more)


def weights(path: Path):
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("method", ["magnitude", "wanda", "second-order"])
def test_a_folder_is_pruned_along_the_axis_products_sum_over(dense, texts, tmp_path, method):
    out = tmp_path / "out"
    report = sparsify(SparseSource(dense), out, options(method, texts, evaluate=texts))
    axis = 0 if "gpt2" in str(dense) else -1
    before, after = weights(dense), weights(out)
    assert set(before) == set(after)
    names = set(report.tensors)
    assert any("mlp" in name for name in names)
    assert not any("embed" in name or "wte" in name or "lm_head" in name for name in names)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        if name in names:
            found = check_pattern(tensor.numpy(), TWO, axis)
            assert (found.holds, found.zeros) == (1, pytest.approx(0.5))
        else:
            assert torch.equal(tensor, before[name])
    assert report.quality.metric == "perplexity"
    assert report.quality.after != report.quality.before
    assert (out / "config.json").read_bytes() == (dense / "config.json").read_bytes()
    assert json.loads((out / "sparsity.json").read_text())["method"] == method
    facts = inspect_zeros(out).facts
    assert facts["2:4 holds in"] == len(names)
    assert ("first" if axis == 0 else "last") in facts["along"]


def test_what_is_calibrated_is_what_the_layer_reads(texts, tmp_path):
    """The first layer by hand: its inputs are the normalised embeddings."""
    dense = write_huggingface(tmp_path / "dense", "llama")
    name = "model.layers.0.self_attn.q_proj.weight"
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(dense)
    rows = []
    with torch.no_grad():
        for line in texts.read_text().splitlines():
            ids = torch.tensor([json.loads(line)["input_ids"]])
            embedded = model.model.embed_tokens(ids)
            rows.append(model.model.layers[0].input_layernorm(embedded)[0].double())
    x, weight = torch.cat(rows), weights(dense)[name]
    wanted = {
        "wanda": wanda(weight, x.square().sum(0).sqrt(), TWO),
        "second-order": second_order(weight, x.T @ x, TWO),
        "magnitude": magnitude(weight, TWO),
    }
    for method, expected in wanted.items():
        out = tmp_path / method
        sparsify(SparseSource(dense), out, options(method, texts, layers=(name,)))
        torch.testing.assert_close(weights(out)[name], expected, rtol=1e-4, atol=1e-5)
        others = {k: v for k, v in weights(out).items() if k != name}
        assert all(torch.equal(v, weights(dense)[k]) for k, v in others.items())


def test_second_order_moves_outputs_less_than_wanda_and_wanda_less_than_magnitude(tmp_path):
    """On inputs of which some matter far more than others, and that go together."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(32, 32, generator=generator) * torch.logspace(-1, 1, 32)[:, None]
    save_file({"weight": torch.randn(16, 32, generator=generator), "bias": torch.zeros(16)},
              tmp_path / "net.safetensors")  # fmt: skip
    x = (torch.randn(256, 32, generator=generator) @ mix.T).numpy()
    np.savez(tmp_path / "x.npz", input=x[:192])
    np.savez(tmp_path / "held.npz", input=x[192:])
    (tmp_path / "one_linear.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(32, 16)\n"
    )
    what = SparseSource(tmp_path / "net.safetensors", "one_linear:make", tmp_path)
    lost = []
    for method in ("magnitude", "wanda", "second-order"):
        chosen = SparseOptions(TWO, method, tmp_path / "x.npz", tmp_path / "held.npz")
        lost.append(sparsify(what, tmp_path / f"{method}.safetensors", chosen).quality)
    assert {quality.metric for quality in lost} == {"error"}
    assert lost[0].after > lost[1].after > lost[2].after > 0


def test_labels_give_accuracy(tmp_path):
    save_file({"weight": torch.eye(8), "bias": torch.zeros(8)}, tmp_path / "net.safetensors")
    rows = np.eye(8, dtype=np.float32)
    np.savez(tmp_path / "held.npz", input=rows, label=np.arange(8))
    (tmp_path / "eight.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(8, 8)\n"
    )
    what = SparseSource(tmp_path / "net.safetensors", "eight:make", tmp_path)
    chosen = SparseOptions(TWO, "magnitude", None, tmp_path / "held.npz")
    quality = sparsify(what, tmp_path / "out.safetensors", chosen).quality
    assert (quality.metric, quality.before, quality.after) == ("accuracy", 1.0, 1.0)


def test_shards_and_bfloat16_stay_as_they_are(dense, tmp_path):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(dense, dtype=torch.bfloat16)
    src, out = tmp_path / "src", tmp_path / "out"
    model.save_pretrained(src, max_shard_size="20KB")
    sparsify(SparseSource(src), out, SparseOptions(TWO, "magnitude"))
    before, after = open_checkpoint(src), open_checkpoint(out)
    assert [f.name for f in before.files] == [f.name for f in after.files]
    assert len(after.files) > 1
    assert {e.dtype for _, e in after.tensors.values()} == {"BF16"}


def test_mistakes_are_told_and_leave_nothing(dense, texts, tmp_path):
    what = SparseSource(dense)
    with pytest.raises(RecipeError, match="wanda weighs weights by what layers read"):
        sparsify(what, tmp_path / "out", SparseOptions(TWO, "wanda"))
    with pytest.raises(MergeError, match="no matrix to prune to 2:4") as caught:
        sparsify(what, tmp_path / "out", SparseOptions(TWO, "magnitude", layers=("nothing",)))
    assert "patterns of tensor names" in caught.value.hint
    with pytest.raises(MergeError) as caught:
        sparsify(what, tmp_path / "out", SparseOptions(Pattern(3, 7), "magnitude"))
    assert "no multiple of 7" in caught.value.hint
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="exists"):
        sparsify(what, tmp_path / "there", SparseOptions(TWO, "magnitude"))
    shutil.copy(dense / "model.safetensors", tmp_path / "w.safetensors")
    with pytest.raises(RecipeError, match="what runs them is not said"):
        chosen = SparseOptions(TWO, "wanda", texts)
        sparsify(SparseSource(tmp_path / "w.safetensors"), tmp_path / "out", chosen)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "w.safetensors"]
