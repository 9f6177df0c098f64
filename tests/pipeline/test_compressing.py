"""toolkit compress: smaller, back as it was, and read by nothing that would misread it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workshop import write_huggingface
from toolkit.checkpoint import open_checkpoint, read_header
from toolkit.errors import BundleError, CheckpointError
from toolkit.pipeline import (
    SparseOptions,
    SparseSource,
    compress_checkpoint,
    restore_checkpoint,
    sparsify,
)
from toolkit.sparse import Pattern

ENDING = ".compressed.safetensors"


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A Llama in two shards, 2:4."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("sparse")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).half().save_pretrained(folder / "dense", max_shard_size="100KB")
    sparsify(
        SparseSource(folder / "dense"), folder / "out", SparseOptions(Pattern(2, 4), "magnitude")
    )
    assert len(open_checkpoint(folder / "out").files) > 1
    return folder / "out"


def tensors(folder):
    return {k: v for file in open_checkpoint(folder).files for k, v in load_file(file).items()}


def test_shards_take_less_and_come_back_bit_for_bit(sparse, tmp_path):
    small, back = tmp_path / "small", tmp_path / "back"
    report = compress_checkpoint(sparse, small)
    # Half of the values, a bit for each place, eight bytes for each row of 64 or 256.
    assert all(0.578 < share < 0.63 for share in report.tensors.values())
    assert report.after < 0.8 * report.before
    assert report.after == sum(file.stat().st_size for file in small.glob("*.safetensors"))
    assert all(file.name.endswith(ENDING) for file in small.glob("*.safetensors"))
    restore_checkpoint(small, back)
    before, after = tensors(sparse), tensors(back)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor.view(torch.int16), after[name].view(torch.int16)), name
    for file in open_checkpoint(sparse).files:
        assert read_header(back / file.name).metadata == read_header(file).metadata
    others = {path.name for path in sparse.iterdir()}
    assert {path.name for path in back.iterdir()} == others
    assert (back / "config.json").read_bytes() == (sparse / "config.json").read_bytes()


def test_transformers_reads_what_came_back_and_not_what_is_compressed(sparse, tmp_path):
    from transformers import AutoModelForCausalLM

    compress_checkpoint(sparse, tmp_path / "small")
    restore_checkpoint(tmp_path / "small", tmp_path / "back")
    ids = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        first, second = (
            AutoModelForCausalLM.from_pretrained(path)(ids).logits
            for path in (sparse, tmp_path / "back")
        )
    assert torch.equal(first, second)
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "small")


def test_a_single_file(tmp_path):
    weight = torch.randn(32, 32) * (torch.rand(32, 32) < 0.1)
    save_file({"w": weight, "b": torch.randn(32)}, tmp_path / "a.safetensors", {"by": "us"})
    report = compress_checkpoint(tmp_path / "a.safetensors", tmp_path / "small.safetensors")
    assert list(report.tensors) == ["w"]
    with pytest.raises(CheckpointError, match="zeros left out") as caught:
        open_checkpoint(tmp_path / "small.safetensors")
    assert "--restore" in caught.value.hint
    restore_checkpoint(tmp_path / "small.safetensors", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_a_folder_that_is_compressed_is_named_so(sparse, tmp_path):
    compress_checkpoint(sparse, tmp_path / "small")
    with pytest.raises(CheckpointError, match="zeros left out"):
        open_checkpoint(tmp_path / "small")
    with pytest.raises(CheckpointError, match="zeros left out"):
        compress_checkpoint(tmp_path / "small", tmp_path / "smaller")


def test_refusals_leave_nothing(sparse, tmp_path):
    dense = write_huggingface(tmp_path / "dense", "llama")
    with pytest.raises(CheckpointError, match="no tensor that would take less"):
        compress_checkpoint(dense, tmp_path / "out" / "small")
    with pytest.raises(CheckpointError, match="not written by toolkit compress"):
        restore_checkpoint(dense, tmp_path / "out" / "back")
    with pytest.raises(CheckpointError, match="not written by toolkit compress"):
        restore_checkpoint(dense / "model.safetensors", tmp_path / "out" / "back")
    with pytest.raises(CheckpointError, match="No such file"):
        restore_checkpoint(tmp_path / "nowhere", tmp_path / "out" / "back")
    with pytest.raises(BundleError, match="exists"):
        compress_checkpoint(sparse, dense)
    assert {path.name for path in tmp_path.iterdir()} == {"dense"}


@pytest.mark.parametrize("damage", ["part", "list", "values"])
def test_damage_is_found(sparse, tmp_path, damage):
    compress_checkpoint(sparse, tmp_path / "small")
    file = sorted((tmp_path / "small").glob("*.safetensors"))[-1]
    metadata, found = dict(read_header(file).metadata), load_file(file)
    name = next(name for name in found if name.endswith(".bitmask"))
    if damage == "part":
        del found[name]
    elif damage == "list":
        metadata["toolkit.compressed"] = "{}"
    else:
        found[name] = found[name].clone()
        found[name][0, 0] ^= 1
    save_file(found, file, metadata)
    with pytest.raises(CheckpointError):
        restore_checkpoint(tmp_path / "small", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"small"}
