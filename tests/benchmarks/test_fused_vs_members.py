from __future__ import annotations

import dataclasses

from benchmarks import fused_vs_members


def test_the_smallest_case_gives_a_bounded_row_and_its_companions(tmp_path):
    case = dataclasses.replace(fused_vs_members.cases(quick=True)[0], runs=2)
    shared, default, absolute = fused_vs_members.measure(case, tmp_path, repeats=5)
    assert shared.bound == 1.08
    assert default.bound is None
    assert "sharing one thread pool" in shared.metric
    assert shared.spread[0] <= shared.value <= shared.spread[1]
    assert absolute.unit == "ms"
    assert (tmp_path / "fused.onnx").exists()


def test_members_are_reproducible_and_differ_by_seed(tmp_path):
    member = fused_vs_members.cases(quick=True)[0].members[0]
    sizes = {member.write(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))}
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert sizes == {len(a)}
