"""How fast training goes and how long it will take, and its curves for TensorBoard."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.distill.options import Judgement
from toolkit.errors import CapabilityError
from toolkit.progress import DETAIL, Progress

__all__ = ["Curves", "Pace"]


@dataclass
class Pace:
    """A clock of steps.

    Attributes:
        total: Steps in all.
        unit: ``tokens`` or ``rows``.
        progress: Who is told.
    """

    total: int
    unit: str
    progress: Progress
    _began: float = field(default_factory=time.perf_counter)
    _first: int | None = None
    _units: float = 0.0

    def step(self, done: int, units: float, loss: float) -> None:
        """``done`` steps are made, the last with ``units`` and ``loss``."""
        if self._first is None:
            self._first = done - 1
        self._units += units
        seconds = self.seconds
        left = (self.total - done) * seconds / (done - self._first)
        self.progress(
            f"distil{DETAIL}loss {loss:.4g}, {self.rate:,.0f} {self.unit}/s, {_clock(left)} left",
            done,
            self.total,
        )

    @property
    def seconds(self) -> float:
        """Since the start of this session."""
        return time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Units per second."""
        return self._units / max(self.seconds, 1e-9)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Curves:
    """Event files for TensorBoard, or nothing where no folder is given.

    Going on from a step leaves out what was written of later steps by the run that died.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise CapabilityError(
                "curves for TensorBoard need the tensorboard package, which is not installed",
                hint="pip install 'ensemble-to-engine[distill]', or leave --logs out",
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def train(self, step: int, loss: float, rate: float, norm: float, speed: float) -> None:
        """What a step was."""
        self._add(step, {"train/loss": loss, "train/rate": rate, "train/gradient_norm": norm,
                         "train/units_per_second": speed})  # fmt: skip

    def held(self, found: Judgement) -> None:
        """What the held-out rows say."""
        values = {"loss": found.loss, "nll": found.nll, "accuracy": found.accuracy}
        known = {f"held_out/{name}": value for name, value in values.items() if value is not None}
        self._add(found.step, known)

    def _add(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
