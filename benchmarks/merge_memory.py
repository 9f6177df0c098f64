"""Peak memory of ``toolkit merge``, and that it does not grow with the models."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from benchmarks.measure import peak_memory
from benchmarks.merge_models import FULL, QUICK, Shape, write_family
from benchmarks.merge_speed import CASES, Case, merge_command
from benchmarks.rows import Row

__all__ = ["run"]

MIB = 2**20
BOUND = 400.0 * 1e6 / MIB
GROWTH = 1.2


def run(*, quick: bool) -> list[Row]:
    """Merge three bf16 Llamas of 1.3 GB, and then of 2.6 GB, by linear, TIES and DARE-TIES.

    The peak is the largest resident set, libraries included; weight files are read, not mapped, so
    they are no part of it.
    """
    shape = QUICK if quick else FULL
    double = dataclasses.replace(shape, layers=_layers_of_twice(shape))
    cases = [case for case in CASES if case.method in {"linear", "ties", "dare_ties"}]
    small, large = (_peaks(s, cases) for s in (shape, double))
    rows = []
    for case in cases:
        name = case.method
        rows += [
            Row(f"{name}: peak", small[name] / MIB, "MiB", bound=None if quick else BOUND),
            Row(f"{name}: peak for twice the size / peak", large[name] / small[name], "x",
                bound=None if quick else GROWTH),
        ]  # fmt: skip
    return rows


def _layers_of_twice(shape: Shape) -> int:
    """How many layers make a model of twice the size: embeddings and head stay as they are."""
    outside = 2 * shape.vocabulary * shape.hidden
    layer = shape.hidden * (2 * shape.hidden + 2 * shape.keys + 3 * shape.intermediate)
    return 2 * shape.layers + round(outside / layer)


def _peaks(shape: Shape, cases: list[Case]) -> dict[str, int]:
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_family(folder, shape, ("base", "a", "b"))
        for case in cases:
            config, out, log = folder / "merge.yml", folder / "out", folder / "log"
            config.write_text(case.config())
            done = peak_memory(merge_command(config, out), str(log))
            if done.code != 0:
                raise RuntimeError(f"toolkit merge exited with {done.code}:\n{log.read_text()}")
            peaks[case.method] = done.peak
            shutil.rmtree(out)
    return peaks
