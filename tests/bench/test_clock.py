"""Windows end when they agree, rounds when their ratio is known; a clock of our own shows it."""

from __future__ import annotations

from itertools import chain, repeat

import pytest

from toolkit.bench import clock
from toolkit.bench.options import BenchOptions


@pytest.fixture
def moving(monkeypatch):
    """Makes a call that takes the given seconds of a clock that nothing else moves."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def make(*seconds):
        taken = chain(seconds, repeat(seconds[-1]))

        def call():
            now[0] += next(taken)

        return call

    make.now = now
    return make


def test_it_stops_with_the_first_windows_that_agree(moving):
    options = BenchOptions(warmup=0, window=0.1, agree=3, tolerance=0.05, seconds=60)
    slow_start = [0.05] * 3 + [0.02] * 5 + [0.01] * 10
    found = clock.time_windows(moving(*slow_start), options)
    assert found.stable
    assert found.medians == pytest.approx((0.02, 0.01, 0.01, 0.01))
    assert len(found.seconds) == 30
    assert sum(found.seconds) == pytest.approx(found.elapsed) == pytest.approx(0.3)


def test_where_windows_do_not_agree_time_ends_it_and_all_count(moving):
    options = BenchOptions(warmup=0, window=0.1, seconds=1)
    growing = [0.01 * 1.02**step for step in range(400)]
    found = clock.time_windows(moving(*growing), options)
    assert not found.stable
    assert 1 <= moving.now[0] < 1.2
    assert len(found.medians) > 3
    assert found.elapsed == pytest.approx(sum(found.seconds))


def test_a_run_longer_than_the_time_is_measured_once(moving):
    found = clock.time_windows(moving(30.0), BenchOptions(seconds=1))
    assert found.seconds == (30.0,)


def test_rounds_end_once_the_ratio_is_narrow_and_show_it(moving):
    options = BenchOptions(warmup=0, turn=0.02, seconds=600)
    found = clock.time_rounds(moving(0.004), moving(0.002), options)
    assert found.first == pytest.approx((0.004,) * 21)
    assert found.second == pytest.approx((0.002,) * 21)
    assert moving.now[0] < 21 * 2 * 0.03 + 1


def test_rounds_alternate_which_side_is_first(moving):
    order = []
    calls = [lambda s=side: (order.append(s), moving(1.0)()) for side in "ab"]
    clock.time_rounds(*calls, BenchOptions(warmup=0, turn=0.1, seconds=0.1))
    assert "".join(order[-6:]) == "abbaab"
