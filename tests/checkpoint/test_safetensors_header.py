"""Headers: what the format's own writer writes is read back, and nothing else passes."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from tests.checkpoint.files import raw, tensor
from toolkit.checkpoint import MAX_HEADER_BYTES, open_checkpoint, read_header
from toolkit.errors import CheckpointError

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]
ARRAYS = hnp.arrays(
    st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda t: t != "__metadata__")


@given(tensors=st.dictionaries(NAMES, ARRAYS, max_size=6))
def test_what_safetensors_writes_is_read_back(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("written") / "w.safetensors"
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    save_file(tensors, path, metadata={"format": "np"})
    checkpoint = open_checkpoint(path)
    assert read_header(path).metadata == {"format": "np"}
    assert set(checkpoint.tensors) == set(tensors)
    for name, array in tensors.items():
        read = checkpoint.read(name)
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()


def test_entries_carry_absolute_offsets_in_file_order(tmp_path):
    header = {"b": tensor("I64", [2], 4, 20), "a": tensor("F32", [], 0, 4)}
    path = raw(tmp_path / "w.safetensors", header, bytes(20))
    base = 8 + len(json.dumps(header))
    entries = read_header(path).entries
    assert list(entries) == ["a", "b"]
    a, b = entries.values()
    assert (a.start, a.stop, a.elements, a.nbytes) == (base, base + 4, 1, 4)
    assert (b.start, b.stop, b.shape, b.dtype) == (base + 4, base + 20, (2,), "I64")


def test_bfloat16_is_read_as_its_bits(tmp_path):
    path = raw(
        tmp_path / "w.safetensors",
        {"w": tensor("BF16", [2], 0, 4)},
        np.array([1.0, -2.0], ml_dtypes.bfloat16).tobytes(),
    )
    assert open_checkpoint(path).read("w").tolist() == [0x3F80, 0xC000]


def test_packed_types_are_read_as_flat_bytes(tmp_path):
    path = raw(tmp_path / "w.safetensors", {"w": tensor("F4", [2, 4], 0, 4)}, b"abcd")
    read = open_checkpoint(path).read("w")
    assert (read.dtype, read.tobytes()) == (np.uint8, b"abcd")


def test_mapped_tensors_are_read_only(tmp_path):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    read = open_checkpoint(tmp_path / "w.safetensors").read("w")
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 2


def test_reading_an_unknown_tensor_names_it(tmp_path):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    checkpoint = open_checkpoint(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"has no tensor 'v', but 1 others"):
        checkpoint.read("v")


def test_a_file_cut_short_after_opening_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones(3000, np.float32)}, path)
    checkpoint = open_checkpoint(path)
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match=r"cannot map tensor 'w' of .*w\.safetensors"):
        checkpoint.read("w")


F32 = tensor("F32", [2], 0, 8)
BROKEN = {
    "empty file": (b"", "is truncated: 0 bytes, and a safetensors file starts with 8 bytes"),
    "short file": (b"1234567", "is truncated: 7 bytes"),
    "header over the limit": (
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}",
        "header length 100,000,001 is over the limit of 100,000,000 bytes",
    ),
    "header longer than the file": (
        (50).to_bytes(8, "little") + b"{}",
        "is truncated: the header takes 50 bytes and 2 follow its length",
    ),
    "empty header": (b"", "header starts with b'', and a JSON object was wanted"),
    "not an object": (b"[1]", "header starts with b'[1]', and a JSON object was wanted"),
    "not JSON": (b"{nope}", "header is not valid JSON: Expecting property name"),
    "not UTF-8": (b'{"\xff": 1}', "header is not valid JSON: 'utf-8' codec can't decode byte 0xff"),
    "nested without end": (b'{"a":' * 100_000, "header is not valid JSON: maximum recursion"),
    "key twice": (b'{"a": {}, "a": {}}', "header has the key 'a' twice"),
    "inner key twice": (
        b'{"a": {"dtype": "F32", "dtype": "F16"}}',
        "header has the key 'dtype' twice",
    ),
    "metadata no map": (
        {"__metadata__": [1]},
        "__metadata__ is [1], and a map of strings to strings was wanted",
    ),
    "metadata not text": ({"__metadata__": {"a": 1}}, "__metadata__ is {'a': 1}, and a map"),
    "entry no map": ({"a": 3}, "tensor 'a' has 3, and exactly dtype, shape and data_offsets"),
    "entry empty": ({"a": {}}, "tensor 'a' has no keys, and exactly dtype, shape and data_offsets"),
    "entry with more": (
        {"a": {**F32, "x": 1}},
        "tensor 'a' has 'dtype', 'shape', 'data_offsets', 'x'",
    ),
    "dtype unknown": ({"a": {**F32, "dtype": "F128"}}, "tensor 'a' has unknown dtype 'F128'"),
    "dtype no text": ({"a": {**F32, "dtype": ["F32"]}}, "tensor 'a' has unknown dtype ['F32']"),
    "negative size": (
        {"a": tensor("F32", [-2], 0, 8)},
        "has shape [-2], and sizes >= 0 were wanted",
    ),
    "size true": ({"a": tensor("F32", [True], 0, 4)}, "has shape [True], and sizes >= 0"),
    "size too large": ({"a": tensor("F32", [2**64], 0, 8)}, "has shape [18446744073709551616]"),
    "shape no list": ({"a": tensor("F32", 2, 0, 8)}, "has shape 2, and sizes >= 0 were wanted"),
    "too many dimensions": ({"a": tensor("U8", [1] * 65, 0, 1)}, "has 65 dimensions, and 64 are"),
    "bits left over": ({"a": tensor("F4", [3], 0, 1)}, "F4 of shape [3] does not fill whole bytes"),
    "size and shape differ": (
        {"a": tensor("F32", [3], 0, 8)},
        "tensor 'a' spans 8 bytes, and F32 of shape [3] takes 12",
    ),
    "offsets reversed": (
        {"a": tensor("F32", [2], 8, 0)},
        "has data_offsets [8, 0], and [start, stop]",
    ),
    "offset negative": ({"a": tensor("F32", [2], -8, 0)}, "has data_offsets [-8, 0]"),
    "offset a float": ({"a": tensor("F32", [2], 0.0, 8)}, "has data_offsets [0.0, 8]"),
    "three offsets": ({"a": {**F32, "data_offsets": [0, 8, 8]}}, "has data_offsets [0, 8, 8]"),
    "out of range": (
        {"a": tensor("F32", [4], 0, 16)},
        "tensor 'a' ends at byte 86, and the file has 78 (truncated?)",
    ),
    "overlap": (
        {"a": F32, "b": tensor("U8", [4], 4, 8)},
        "tensor 'b' starts at byte 133 and overlaps 'a', which ends at 137",
    ),
    "hole": (
        {"a": tensor("F32", [1], 0, 4), "b": tensor("U8", [2], 6, 8)},
        "leaving a hole of 2 bytes behind 'a'",
    ),
    "hole in front": (
        {"a": tensor("U8", [4], 4, 8)},
        "leaving a hole of 4 bytes behind the header",
    ),
    "bytes behind": ({"a": tensor("U8", [4], 0, 4)}, "has 4 bytes behind its last tensor"),
    "name no Unicode": (b'{"\\ud800": {}}', "has a name that is not valid Unicode"),
    "line break in a name": ({"a\nb": 3}, r"tensor 'a\nb' has 3"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_broken_rule_is_named(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "w.safetensors"
    if case in ("empty file", "short file") or "header over" in case or "header longer" in case:
        path.write_bytes(content)
    else:
        raw(path, content, bytes(8))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_unknown_dtypes_list_the_known_ones(tmp_path):
    path = raw(tmp_path / "w.safetensors", {"a": {**F32, "dtype": "F128"}}, bytes(8))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert "BF16" in caught.value.hint
    assert "F8_E4M3" in caught.value.hint


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*gone: No such file or directory"):
        read_header(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"is not a regular file, and a safetensors file"):
        read_header(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=r"is a Git LFS pointer of 63 bytes") as caught:
        read_header(path)
    assert caught.value.hint == "fetch them with: git lfs pull"


@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_header_or_a_checkpoint_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    path.write_bytes(content)
    _header_or_error(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4", "BF16", "F128"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


@given(
    header=st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=4), size=st.integers(0, 40)
)
def test_any_json_gives_a_header_or_a_checkpoint_error(tmp_path_factory, header, size):
    path = raw(tmp_path_factory.mktemp("fuzz") / "w.safetensors", header, bytes(size))
    _header_or_error(path)


@given(data=st.data())
def test_one_changed_byte_never_passes_where_safetensors_refuses(tmp_path_factory, data):
    content = bytearray(save({"a": np.ones(4, np.float32), "b": np.zeros((2, 2), np.int8)}))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    path.write_bytes(content)
    if _header_or_error(path):
        try:
            with safe_open(path, "np") as reference:
                assert set(reference.keys()) == set(read_header(path).entries)
        except SafetensorError as error:
            pytest.fail(f"read_header accepts what safetensors refuses: {error}")


def _header_or_error(path):
    try:
        header = read_header(path)
    except CheckpointError as error:
        message = error.message
    else:
        size = path.stat().st_size
        assert all(8 <= e.start <= e.stop <= size for e in header.entries.values())
        return True
    assert "\n" not in message
    assert str(path) in message
    return False
