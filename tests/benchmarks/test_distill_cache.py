from __future__ import annotations

from benchmarks import distill_cache


def test_time_memory_and_loss_stand_beside_each_other(tmp_path):
    sizes = {"vocab_size": 200, "hidden_size": 64, "layers": 1}
    rows = distill_cache.measure(sizes, tmp_path, steps=2, repeats=2)
    bounds = {row.metric: row.bound for row in rows}
    assert [bound for bound in bounds.values() if bound is not None] == [1.0, 0.25]
    gap = next(row for row in rows if "loss" in row.metric)
    assert gap.value > 0
    assert gap.value < 3 * gap.beside["printed"]
    assert rows[1].value > 0
