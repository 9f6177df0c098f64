"""Weight files from strangers: no code runs, no memory floods, nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.checkpoint.files import model_folder, raw, tensor
from toolkit.checkpoint import MAX_HEADER_BYTES, open_checkpoint, read_header
from toolkit.errors import CheckpointError


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.write_text, (self.mark, "boom"))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_loaded(tmp_path, name, protocol):
    folder, mark = tmp_path / "m", tmp_path / "mark"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    content = pickle.dumps(Bomb(mark), protocol)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)
    assert not mark.exists()
    pickle.loads(content)  # the bomb is live
    assert mark.exists()


def test_a_header_that_claims_to_be_huge_is_not_allocated(tmp_path):
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(MAX_HEADER_BYTES.to_bytes(8, "little"))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="is truncated: the header takes 100,000,000 bytes"):
        read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_tensor_that_claims_to_be_huge_is_not_allocated(tmp_path):
    size = 2**62
    path = raw(tmp_path / "w.safetensors", {"w": tensor("U8", [size], 0, size)}, b"x")
    with pytest.raises(CheckpointError, match=r"tensor 'w' ends at byte 4,611,686,018,427,38"):
        read_header(path)


def test_sizes_whose_product_overflows_are_refused(tmp_path):
    path = raw(tmp_path / "w.safetensors", {"w": tensor("U8", [2**62] * 40, 0, 8)}, bytes(8))
    with pytest.raises(CheckpointError, match=r"tensor 'w' spans 8 bytes, and U8 of shape"):
        read_header(path)


def test_many_tensors_take_linear_time(tmp_path):
    count = 100_000
    header = {f"t{i}": tensor("U8", [1], i, i + 1) for i in range(count)}
    path = raw(tmp_path / "w.safetensors", header, bytes(count))
    started = time.monotonic()
    assert len(read_header(path).entries) == count
    assert time.monotonic() - started < 30


def test_a_repeated_key_among_many_is_found_in_linear_time(tmp_path):
    keys = ",".join(f'"k{i}":0' for i in range(100_000))
    path = raw(tmp_path / "w.safetensors", f'{{{keys},"k99999":0}}'.encode())
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="header has the key 'k99999' twice"):
        read_header(path)
    assert time.monotonic() - started < 30


def test_a_long_name_is_cut_in_the_message(tmp_path):
    path = raw(tmp_path / "w.safetensors", {"n" * 1_000_000: 3})
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert len(caught.value.message) < 500 + len(str(path))


def test_control_characters_of_a_name_never_reach_the_terminal(tmp_path):
    path = raw(tmp_path / "w.safetensors", {"\x1b[2J\r\u202eevil": 3})
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.message.isprintable()


def test_numbers_of_thousands_of_digits_are_an_error(tmp_path):
    path = raw(tmp_path / "w.safetensors", b'{"w": ' + b"9" * 5000 + b"}")
    with pytest.raises(CheckpointError, match="header is not valid JSON: Exceeds the limit"):
        read_header(path)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "1.0"])
def test_offsets_are_whole_numbers(tmp_path, number):
    header = f'{{"w":{{"dtype":"U8","shape":[1],"data_offsets":[0,{number}]}}}}'
    path = raw(tmp_path / "w.safetensors", header.encode(), b"x")
    with pytest.raises(CheckpointError, match=r"has data_offsets \[0, "):
        read_header(path)


def test_a_pipe_does_not_block(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        open_checkpoint(folder)


def test_a_config_that_is_a_pipe_does_not_block(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json is not a regular file"):
        open_checkpoint(folder)


def test_an_index_of_links_in_a_loop_is_an_error(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "a.safetensors").symlink_to(folder / "a.safetensors")
    index = {"weight_map": {"w": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"names 'a\.safetensors', which is missing"):
        open_checkpoint(folder)


def test_blobs_beside_a_cache_must_be_the_models_own(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "w").write_bytes(b"{}")
    cache = tmp_path / "models--a--b"
    folder = model_folder(cache / "snapshots" / "c0ffee")
    (cache / "blobs").symlink_to(secret)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("../../blobs/w")
    with pytest.raises(CheckpointError, match=r"which leads out of the folder to .*/secret/w"):
        open_checkpoint(folder)


def test_refusing_leaves_nothing_behind(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"broken")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)
    assert sorted(tmp_path.rglob("*")) == before
