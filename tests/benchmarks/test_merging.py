from __future__ import annotations

import subprocess

import numpy as np
import pytest

from benchmarks import merge_agreement, merge_speed
from benchmarks.merge_models import Shape, write_family
from tests.merge.models import save, to_bfloat16
from toolkit.checkpoint import open_checkpoint
from toolkit.merge.config import parse
from toolkit.merge.methods.table import METHODS

TINY = Shape(hidden=64, intermediate=96, layers=2, vocabulary=50, keys=64)


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "BF16"), ("float32", "F32")])
def test_a_family_has_a_base_and_fine_tunes_near_it(tmp_path, dtype, stored):
    size = write_family(tmp_path, TINY, ("base", "a", "b"), dtype=dtype, shards=2)
    found = {name: open_checkpoint(tmp_path / name) for name in ("base", "a", "b")}
    assert {c.nbytes for c in found.values()} == {size}
    assert {len(c.files) for c in found.values()} == {2}
    assert {e.dtype for c in found.values() for _, e in c.tensors.values()} == {stored}
    assert list(found["base"].tensors) == [name for name, _ in TINY.tensors()]
    if dtype == "float32":
        base, a, b = (c.read("lm_head.weight") for c in found.values())
        assert np.std(a - base) == pytest.approx(0.002, rel=0.1)
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("case", merge_speed.CASES, ids=lambda case: case.method)
def test_the_configs_that_are_timed_parse(case):
    assert parse(case.config())[0].merge_method == case.method


def test_the_floor_reads_all_models_and_writes_the_last(tmp_path):
    write_family(tmp_path, TINY, ("base", "a"), shards=2)
    subprocess.run(merge_speed.floor_command(tmp_path, ("base", "a")), check=True)
    files = sorted((tmp_path / "a").glob("*.safetensors"))
    assert (tmp_path / "floor").read_bytes() == b"".join(f.read_bytes() for f in files)


def test_every_method_that_mergekit_has_too_is_compared():
    ours_alone = {"uniform_soup", "wise_ft", "fisher"}
    compared = {method for method, _, _ in merge_agreement.CONFIGS.values()}
    assert compared == set(METHODS) - ours_alone
    for method, text, _ in merge_agreement.CONFIGS.values():
        parse(f"merge_method: {method}\n{text}")


def test_one_rounding_counts_as_equal_and_two_do_not(tmp_path):
    values = np.linspace(1, 1.5, 64, dtype=np.float32).reshape(8, 8)
    bits = to_bfloat16(values)
    for name, step in (("same", 0), ("one", 1), ("two", 2)):
        save(tmp_path / name, {"x": (bits + np.uint16(step)).astype(np.uint16)})
    own = tmp_path / "same"
    found = [merge_agreement.compare(own, tmp_path / n) for n in ("same", "one", "two")]
    assert [f.differ for f in found] == [0, 1, 1]
    assert [f.beyond for f in found] == [0, 0, 1]
