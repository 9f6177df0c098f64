from __future__ import annotations

from benchmarks import skipped_member
from benchmarks.members import Member


def test_the_cost_of_a_skipped_member_is_bounded_and_the_others_stand_beside_it(tmp_path):
    kwargs = {"vocabulary": 50, "width": 64, "depth": 1, "classes": 10}
    member = Member("benchmarks.models:encoder", kwargs)
    bounded, *beside = skipped_member.measure(member, 50, tmp_path, repeats=3)
    assert bounded.bound == 0.03
    assert bounded.spread[0] <= bounded.value <= bounded.spread[1]
    assert [row.bound for row in beside] == [None] * 4
    assert (tmp_path / "skipping.onnx").exists()


def test_the_cost_is_that_of_one_of_three():
    seconds = {"one of four": [5.3, 2.0], "one of one": [5.0, 2.0], "member": [2.0, 1.0]}
    found = skipped_member._cost(seconds)
    assert abs(found.high - 0.05) < 1e-12
    assert found.low == 0
