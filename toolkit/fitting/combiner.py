"""A combiner's parameters by cross-entropy on what frozen stages say (Wolpert 1992)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toolkit.errors import RecipeError
from toolkit.fitting.examples import Batch
from toolkit.fitting.rows import Score
from toolkit.fitting.training import GateFit, TrainingOptions, run_module, train
from toolkit.progress import Progress, silent

__all__ = ["Trainee", "fit_combiner", "judge", "said"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trainee:
    """A module that is trained, and how it is asked.

    Attributes:
        module: Takes inputs by keyword and returns a tuple.
        names: From its input names to those of the examples.
        place: Of the logits in the tuple.
    """

    module: nn.Module
    names: Mapping[str, str]
    place: int

    def logits(self, batch: Batch) -> torch.Tensor:
        """For each label that counts [n, classes].

        Raises:
            RecipeError: If the module cannot run on the data, or gives no logits for its labels.
        """
        found = run_module(self.module, batch, self.names, self.place, "combiner")
        labels = torch.from_numpy(batch.labels)
        if found.shape[:-1] != labels.shape:
            raise RecipeError(
                f"the labels of a batch have shape {list(labels.shape)} and the combiner's output "
                f"{list(found.shape)}, wanted one label for each row of it"
            )
        _check_classes(batch, found.shape[-1], "combiner")
        return found[labels >= 0]


def fit_combiner(
    trainee: Trainee,
    fitted: Sequence[Batch],
    validation: Sequence[Batch],
    options: TrainingOptions,
    progress: Progress = silent,
) -> GateFit:
    """Train the module in place with Adam and keep the parameters that validate best.

    Args:
        trainee: The combiner.
        fitted: Examples whose feeds hold what the stages say.
        validation: Examples that training does not see.
        options: How.
        progress: Told of every pass.
    """

    def losses(batch: Batch) -> torch.Tensor:
        labels = torch.from_numpy(batch.labels[batch.labels >= 0])
        return nn.functional.cross_entropy(trainee.logits(batch), labels, reduction="none")

    return train(trainee.module, losses, fitted, validation, options, progress, "combiner")


def said(output: _Array, batch: Batch, space: Literal["logits", "probabilities"]) -> torch.Tensor:
    """Log probabilities float64 [n, classes] of a stage's output, for each label that counts.

    Raises:
        RecipeError: If a label is no class of it.
    """
    _check_classes(batch, output.shape[-1], "stage")
    values = torch.from_numpy(output[batch.labels >= 0].astype(np.float64))
    return values.log() if space == "probabilities" else values.log_softmax(-1)


def judge(batches: Sequence[Batch], speak: Callable[[int], torch.Tensor]) -> Score:
    """How likely the labels are; ``speak`` gives log probabilities [n, classes] of a batch."""
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for number, batch in enumerate(batches):
            labels = torch.from_numpy(batch.labels[batch.labels >= 0])
            logs = speak(number)
            total -= float(logs.gather(-1, labels.unsqueeze(-1)).sum())
            right += int((logs.argmax(-1) == labels).sum())
            count += len(labels)
    return Score(total / max(count, 1), right / max(count, 1), count)


def _check_classes(batch: Batch, classes: int, who: str) -> None:
    if batch.labels.size and batch.labels.max() >= classes:
        raise RecipeError(f"a label is {batch.labels.max()}, and a {who} knows {classes} classes")
