"""Every NaN and infinity is found, in every format, and nothing else is."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.checkpoint.files import raw, tensor
from toolkit.checkpoint import check_finite, open_checkpoint
from toolkit.checkpoint.finite import CHUNK_BYTES
from toolkit.errors import CheckpointError

FORMATS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "C64": np.complex64,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}


def checkpoint_of(path, dtype, array):
    data = array.tobytes()
    return open_checkpoint(raw(path, {"w": tensor(dtype, list(array.shape), 0, len(data))}, data))


@pytest.mark.parametrize("dtype", [d for d, kind in FORMATS.items() if np.dtype(kind).itemsize < 3])
def test_every_bit_pattern_is_judged_as_numpy_judges_it(tmp_path, dtype):
    kind = np.dtype(FORMATS[dtype])
    bits = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
    values = bits.view(kind).astype(np.float32)
    finite = bits[np.isfinite(values)]
    check_finite(checkpoint_of(tmp_path / "finite", dtype, finite.view(kind)))
    nans, infs = np.isnan(values).sum(), np.isinf(values).sum()
    first = int(np.argmax(~np.isfinite(values)))
    with pytest.raises(CheckpointError) as caught:
        check_finite(checkpoint_of(tmp_path / "all", dtype, bits.view(kind)))
    assert f"holds {nans:,} NaN and {infs:,} Inf among {bits.size:,} values, the first at " in (
        caught.value.message
    )
    assert f"the first at [{first}];" in caught.value.message


@pytest.mark.parametrize("dtype", ["F64", "F32", "C64"])
def test_wide_formats_find_each_kind(tmp_path, dtype):
    array = np.full((3, 4), 1e30, FORMATS[dtype])
    check_finite(checkpoint_of(tmp_path / "good", dtype, array))
    array[1, 2] = np.nan
    array[2, 0] = -np.inf
    with pytest.raises(CheckpointError) as caught:
        check_finite(checkpoint_of(tmp_path / "bad", dtype, array))
    assert caught.value.message == (
        f"{tmp_path / 'bad'}: tensor 'w' holds 1 NaN and 1 Inf among 12 values, the first at "
        "[1, 2]; finite weights were wanted"
    )
    assert "training diverged or the file is damaged" in caught.value.hint


def test_the_last_value_of_the_last_chunk_counts(tmp_path):
    array = np.ones(CHUNK_BYTES // 4 * 2 + 1, np.float32)
    array[-1] = np.inf
    with pytest.raises(CheckpointError, match=rf"the first at \[{array.size - 1}\]"):
        check_finite(checkpoint_of(tmp_path / "w", "F32", array))


def test_integers_and_empty_tensors_are_no_business_of_it(tmp_path):
    tensors = {"i": np.full(4, -1, np.int32), "none": np.zeros((0, 3), np.float32)}
    save_file(tensors, tmp_path / "w.safetensors")
    check_finite(open_checkpoint(tmp_path / "w.safetensors"))


def test_progress_counts_bytes_up_to_the_total(tmp_path):
    tensors = {"a": np.ones(CHUNK_BYTES, np.uint8).view(np.float32), "b": np.ones(7, np.float16)}
    save_file(tensors, tmp_path / "w.safetensors")
    seen = []
    check_finite(open_checkpoint(tmp_path / "w.safetensors"), lambda *counts: seen.append(counts))
    total = CHUNK_BYTES + 14
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_memory_does_not_grow_with_the_file(tmp_path):
    save_file({"w": np.ones(8 << 20, np.float32)}, tmp_path / "w.safetensors")
    checkpoint = open_checkpoint(tmp_path / "w.safetensors")
    tracemalloc.start()
    check_finite(checkpoint)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * CHUNK_BYTES


def test_a_file_that_shrinks_while_read_is_an_error(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones(3000, np.float32)}, path)
    checkpoint = open_checkpoint(path)
    with path.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        check_finite(checkpoint)
