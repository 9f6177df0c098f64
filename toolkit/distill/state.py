"""Where training stands, on disk: everything that going on needs, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.distill.options import Judgement
from toolkit.errors import RecipeError

__all__ = ["Progression", "Store"]

_START, _PART, _SAID, _RUN = "checkpoint-", ".part", "progress.json", "run.json"


@dataclass
class Progression:
    """How far training has come.

    Attributes:
        step: Steps that were made.
        losses: The objective's mean of each.
        judgements: Looks at the held-out rows.
        best: The step with the best look; -1 before the first.
        stale: Looks since then.
        seconds: Of training.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    best: int = -1
    stale: int = 0
    seconds: float = 0.0

    def judge(self, found: Judgement) -> bool:
        """Note a look; whether it is the best so far."""
        before = next((one.loss for one in self.judgements if one.step == self.best), None)
        self.judgements.append(found)
        if before is None or found.loss < before:
            self.best, self.stale = found.step, 0
            return True
        self.stale += 1
        return False


@dataclass(frozen=True)
class Store:
    """The folder of one run.

    A checkpoint is written beside its place and renamed, the one before it is removed after that,
    and weights of a look that a checkpoint speaks of stay until there is a later one: whenever the
    process dies, the last checkpoint is whole.

    Attributes:
        folder: Of the run.
        key: Stands for all that the run depends on.
    """

    folder: Path
    key: str

    def open(self, *, resume: bool) -> Path | None:
        """Make the folder; the checkpoint to go on from, if there is one.

        Raises:
            RecipeError: If there is one of another run, or one that nobody asked to go on from.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._last()
        said = self.folder / _RUN
        known = json.loads(said.read_text()).get("key") if said.is_file() else None
        if found is not None and not resume:
            raise RecipeError(
                f"{self.folder} holds a run that is not finished",
                hint="--resume goes on with it; remove the folder to start over",
            )
        if found is not None and known != self.key:
            raise RecipeError(
                f"{self.folder} holds a run of another recipe, data, teachers or seed",
                hint="remove the folder to start over",
            )
        if found is None:
            said.write_text(json.dumps({"key": self.key}), encoding="utf-8")
        return found

    def _last(self) -> Path | None:
        found = [path for path in self.folder.glob(_START + "*") if path.suffix != _PART]
        return max(found, key=lambda path: int(path.name.removeprefix(_START)), default=None)

    def draft(self, step: int) -> Path:
        """Where the checkpoint after ``step`` is written before it is published."""
        return self.folder / f"{_START}{step}{_PART}"

    def clear(self, step: int) -> None:
        """Remove what a run that died has left of the checkpoint after ``step``."""
        shutil.rmtree(self.draft(step), ignore_errors=True)

    def publish(self, step: int, progression: Progression) -> None:
        """Let the draft be the last checkpoint, and remove what it makes superfluous."""
        draft = self.draft(step)
        (draft / _SAID).write_text(json.dumps(asdict(progression)), encoding="utf-8")
        place = self.folder / f"{_START}{step}"
        shutil.rmtree(place, ignore_errors=True)
        draft.replace(place)
        for old in self.folder.glob(_START + "*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
        for old in self.folder.glob("best-*.safetensors"):
            if old != self._best(progression.best):
                old.unlink()

    @staticmethod
    def progression(checkpoint: Path) -> Progression:
        """Where a checkpoint stands."""
        said: dict[str, Any] = json.loads((checkpoint / _SAID).read_text())
        said["judgements"] = [Judgement(**one) for one in said["judgements"]]
        return Progression(**said)

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"

    def keep(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights after ``step`` as the best so far."""
        from safetensors.torch import save_file  # noqa: PLC0415

        own = {name: t.detach().cpu().clone().contiguous() for name, t in weights.items()}
        part = self.folder / f"best-{step}{_PART}"
        save_file(own, part)
        part.replace(self._best(step))

    def best(self, step: int) -> dict[str, Tensor]:
        """The weights that were kept after ``step``."""
        from safetensors.torch import load_file  # noqa: PLC0415

        found: dict[str, torch.Tensor] = load_file(self._best(step))
        return found

    def finish(self) -> None:
        """Remove the folder: the run is over."""
        shutil.rmtree(self.folder)
