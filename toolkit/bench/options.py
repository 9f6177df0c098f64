"""How long and how carefully to measure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BenchOptions"]


@dataclass(frozen=True)
class BenchOptions:
    """Settings of a measurement.

    Attributes:
        runtimes: Where to run, names out of ``toolkit.runtime.RUNTIMES``.
        threads: Of an operator in ONNX Runtime; 0 for one on each core.
        warmup: Seconds of runs that do not count, at least three runs.
        window: Seconds of one window.
        agree: How many windows one after another must agree.
        tolerance: By how much their medians may differ, as a share.
        seconds: When a point, or a comparison at a point, ends at the latest.
        turn: Seconds of one turn in a round of a comparison.
        margin: Smallest difference that counts, as a share.
        seed: Of the inputs.
    """

    runtimes: tuple[str, ...] = ("cpu",)
    threads: int = 0
    warmup: float = 0.5
    window: float = 0.25
    agree: int = 3
    tolerance: float = 0.05
    seconds: float = 10.0
    turn: float = 0.02
    margin: float = 0.02
    seed: int = 0
