from __future__ import annotations

import sys

from benchmarks.measure import interleaved, peak_memory, ratio

MIB = 2**20


def test_calls_are_taken_in_turns_and_in_alternating_order():
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = interleaved(calls, repeats=3, warmup=1)
    assert "".join(order) == "ba" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_compares_neighbours_so_a_slow_round_cancels_out():
    found = ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 3.0)


def test_peak_memory_is_that_of_the_command_alone(tmp_path):
    ballast = bytearray(256 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    small = peak_memory([sys.executable, "-c", "pass"])
    large = peak_memory([sys.executable, "-c", f"len(b'x' * {200 * MIB})"])
    assert small.peak < 100 * MIB, "the memory of the measuring process was counted"
    assert 190 * MIB < large.peak - small.peak < 230 * MIB
    assert (small.code, large.code) == (0, 0)


def test_peak_memory_gives_the_exit_code_and_keeps_the_output(tmp_path):
    log = tmp_path / "log"
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert peak_memory([sys.executable, "-c", script], str(log)).code == 3
    assert sorted(log.read_text().split()) == ["err", "out"]
