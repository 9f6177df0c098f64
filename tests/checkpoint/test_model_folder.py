"""Model folders: Hugging Face's layout, complete and confined, or one error that says why not."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.checkpoint.files import model_folder, raw, sharded_folder
from toolkit.checkpoint import conversion_command, open_checkpoint
from toolkit.errors import CheckpointError


def refused(source) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_folder_gives_config_files_and_tensors(tmp_path):
    folder = model_folder(tmp_path / "m", w=np.arange(6, dtype=np.float32).reshape(2, 3))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config == {"model_type": "bert"}
    assert checkpoint.files == (folder / "model.safetensors",)
    assert checkpoint.nbytes == 24
    assert checkpoint.read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_shards_are_joined_by_the_index(tmp_path):
    checkpoint = open_checkpoint(sharded_folder(tmp_path / "m"))
    assert [file.name for file in checkpoint.files] == ["one.safetensors", "two.safetensors"]
    assert list(checkpoint.tensors) == ["a", "b"]
    assert checkpoint.read("b").tolist() == [0, 1, 2, 3]


def test_a_single_file_has_no_config(tmp_path):
    folder = model_folder(tmp_path / "m")
    checkpoint = open_checkpoint(folder / "model.safetensors")
    assert (checkpoint.config, checkpoint.folder) == ({}, folder)


def test_a_missing_folder_lists_its_siblings(tmp_path):
    model_folder(tmp_path / "bert")
    error = refused(tmp_path / "brt")
    assert error.message == f"{tmp_path / 'brt'} does not exist"
    assert error.hint == f"{tmp_path} holds 'bert/'"


def test_a_folder_without_config_says_what_it_holds(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "logs").mkdir()
    error = refused(tmp_path)
    assert error.message.endswith("has no config.json; it holds 'logs/', 'weights.safetensors'")
    assert "for weights of your own class use the model kind factory" in error.hint


def test_an_empty_folder_says_so(tmp_path):
    assert refused(tmp_path).message.endswith("has no config.json; it holds nothing")


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert refused(tmp_path).message.endswith(
        "has neither model.safetensors nor model.safetensors.index.json; it holds 'config.json'"
    )


def test_an_adapter_is_recognised(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refused(tmp_path).hint == (
        "this is an adapter (LoRA); merge it into its base model first"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON: Expecting property name"),
        ("[" * 100_000, "config.json is not valid JSON: maximum recursion depth"),
        ("[1]", "config.json holds a list, and a JSON object was wanted"),
    ],
)
def test_a_broken_config_is_named(tmp_path, text, message):
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    assert message in refused(folder).message


def test_a_huge_config_is_refused_unread(tmp_path):
    folder = model_folder(tmp_path / "m")
    with (folder / "config.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "has 67,108,865 bytes, over the limit of 67,108,864" in refused(folder).message


INDEX = {
    "no map": ([1], "has the weight_map [1], and a map of tensor names to files was wanted"),
    "missing file": (
        {"a": "one.safetensors", "b": "x.safetensors"},
        "names 'x.safetensors', which is missing; the folder holds 'config.json'",
    ),
    "parent": (
        {"a": "../one.safetensors"},
        "names the file '../one.safetensors', which leads out of the folder",
    ),
    "absolute": (
        {"a": "/etc/passwd"},
        "names the file '/etc/passwd', which leads out of the folder to /etc/passwd",
    ),
    "zero byte": ({"a": "a\0b"}, r"names the file 'a\x00b', which no file can be called"),
    "tensor missing": (
        {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"},
        "says tensor 'c' is in 'two.safetensors', which does not have it",
    ),
    "tensor elsewhere": (
        {"a": "one.safetensors", "b": "one.safetensors"},
        "says tensor 'b' is in 'one.safetensors', which does not have it",
    ),
    "no text": ({"a": 3}, "has the weight_map {'a': 3}"),
}


@pytest.mark.parametrize("case", INDEX)
def test_an_index_must_match_its_shards(tmp_path, case):
    weight_map, message = INDEX[case]
    assert message in refused(sharded_folder(tmp_path / "m", weight_map)).message


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = sharded_folder(tmp_path / "m")
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    second = {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}
    raw(folder / "two.safetensors", {"a": entry, "b": second}, b"xy")
    assert refused(folder).message == (
        f"tensor 'a' is in two shards of {folder}: 'one.safetensors' and 'two.safetensors'"
    )


def test_a_tensor_the_index_does_not_list_is_refused(tmp_path):
    folder = sharded_folder(tmp_path / "m")
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    second = {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}
    raw(folder / "two.safetensors", {"b": entry, "z": second}, b"xy")
    assert "has tensor 'z', which model.safetensors.index.json does not list" in (
        refused(folder).message
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_refused(tmp_path, name):
    folder = model_folder(tmp_path / "m")
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    message = refused(folder).message
    assert f"names the file '{name}', which leads out of the folder to {outside}" in message


def test_links_in_a_loop_are_an_error(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")
    assert "has no config.json" in refused(folder).message


def test_the_cache_of_hugging_face_is_read_through_its_links(tmp_path):
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    folder = model_folder(tmp_path / "models--a--b" / "snapshots" / "c0ffee")
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(f"../../blobs/{name}")
    assert open_checkpoint(folder).read("w").tolist() == [1, 1, 1]


def test_pickles_are_refused_with_the_command_that_converts_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = {"w": torch.arange(3.0)}
    weights["tied"] = weights["w"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    torch.save({}, tmp_path / "training_args.bin")
    error = refused(tmp_path)
    source, output = tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors"
    assert error.message == (
        f"{source} is a pickle, and loading a pickle runs whatever code it holds; "
        "safetensors was wanted"
    )
    command = conversion_command([source], output)
    assert error.hint == f"if you trust where it comes from, convert it: {command}"
    program, *arguments = shlex.split(command)
    assert program == "python"
    subprocess.run([sys.executable, *arguments], check=True)
    assert load_file(output)["tied"].tolist() == [0, 1, 2]
    assert open_checkpoint(tmp_path).read("w").tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt"])
def test_pickles_are_known_by_their_suffix(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"whatever")
    error = refused(path)
    assert "is a pickle" in error.message
    assert str(tmp_path / "weights.safetensors") in error.hint


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_known_by_their_content(tmp_path, zipped):
    path = tmp_path / "weights.safetensors"
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    error = refused(path)
    assert "is a pickle" in error.message
    assert str(tmp_path / "weights.safetensors.converted.safetensors") in error.hint


def test_several_pickled_shards_become_one_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for i in (1, 2):
        (tmp_path / f"pytorch_model-0000{i}-of-00002.bin").write_bytes(b"x")
    error = refused(tmp_path)
    assert "pytorch_model-00001-of-00002.bin and 1 more is a pickle" in error.message
    assert "pytorch_model-00002-of-00002.bin" in error.hint
    assert str(tmp_path / "model.safetensors") in error.hint


def test_a_header_of_640_bytes_is_no_pickle(tmp_path):
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x0280)
    path = raw(tmp_path / "w.safetensors", header, b"x")
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert open_checkpoint(path).read("w").tolist() == [ord("x")]
