from __future__ import annotations

import pytest

from benchmarks.rows import Row, cells


@pytest.mark.parametrize(("value", "holds"), [(1.0, True), (1.08, True), (1.09, False)])
def test_a_row_holds_up_to_and_with_its_bound(value, holds):
    assert Row("fused / members", value, "x", bound=1.08).holds is holds


def test_a_row_without_a_bound_is_shown_and_never_fails():
    row = Row("python -c pass", 12.34, "ms")
    assert row.holds
    assert cells([row]) == [("python -c pass", "12.3", "", "ms", "", "")]


def test_a_row_shows_its_spread_and_a_broken_bound_loudly():
    row = Row("help", 7.5, "x", (6.9, 123.4), bound=6)
    assert cells([row]) == [("help", "7.50", "6.90 to 123", "x", "<= 6", "NO")]


def test_the_json_of_a_row_says_whether_it_holds():
    assert Row("help", 7.5, "x", (6.0, 8.0), bound=6).as_json() == {
        "metric": "help",
        "value": 7.5,
        "unit": "x",
        "spread": (6.0, 8.0),
        "bound": 6,
        "floor": None,
        "beside": {},
        "holds": False,
    }
