"""Parameters of a gate or a combiner by maximum likelihood, members frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from toolkit.errors import RecipeError
from toolkit.fitting.examples import Batch
from toolkit.fitting.rows import Objective, Rows
from toolkit.progress import Progress, silent
from toolkit.runtime import GateRule, log_weights

__all__ = ["GateFit", "TrainingOptions", "fit_gate", "gate_scores", "run_module", "train"]

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class TrainingOptions:
    """How a gate or a combiner is trained.

    Attributes:
        seed: Of the order of batches.
        epochs: Most passes over the data.
        patience: Passes without progress on the validation split before it stops.
        rate: Of Adam.
    """

    seed: int = 0
    epochs: int = 200
    patience: int = 20
    rate: float = 1e-2


@dataclass(frozen=True)
class GateFit:
    """What training did.

    Attributes:
        epoch: The pass whose parameters were kept, the best on the validation split; 0 is what
            training started from.
        epochs: Passes in all.
        losses: The validation loss before training and after every pass.
    """

    epoch: int
    epochs: int
    losses: tuple[float, ...]


def gate_scores(
    module: nn.Module, rows: Rows, names: Mapping[str, str], place: int
) -> torch.Tensor:
    """A gate's scores for each label that counts [n, M].

    Args:
        module: Takes inputs by keyword and returns a tuple.
        rows: The examples.
        names: From the module's input names to those of the examples.
        place: Of the scores in the tuple.

    Raises:
        RecipeError: If the module cannot run on the data, or gives no scores for its members.
    """
    return rows.of_rows(run_module(module, rows.batch, names, place, "gate"))


def run_module(
    module: nn.Module, batch: Batch, names: Mapping[str, str], place: int, who: str
) -> torch.Tensor:
    """One output of a module that is trained; arguments as of ``gate_scores``.

    Raises:
        RecipeError: If the module cannot run on the data; ``who`` is what the error calls it.
    """
    feeds = {own: torch.from_numpy(batch.feeds[given]) for own, given in names.items()}
    try:
        found: torch.Tensor = module(**feeds)[place]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(f"the {who} cannot run on the data: {reason}") from error
    return found


def fit_gate(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    module: nn.Module,
    names: Mapping[str, str],
    place: int,
    rule: GateRule,
    objective: Objective,
    fitted: Sequence[Rows],
    validation: Sequence[Rows],
    options: TrainingOptions,
    progress: Progress = silent,
) -> GateFit:
    """Train ``module`` in place with Adam and keep the parameters that validate best.

    All members have a weight during training, whatever ``rule.top_k`` says: the choice of the
    best has no gradient, and with one member left the weight is 1 whatever the scores are.
    """
    soft = GateRule(rule.output, None, rule.activation)

    def losses(rows: Rows) -> torch.Tensor:
        scores = gate_scores(module, rows, names, place)
        return objective.losses(rows, log_weights(scores, soft))

    return train(module, losses, fitted, validation, options, progress, "gate")


def train(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    module: nn.Module,
    losses_of: Callable[[_Part], torch.Tensor],
    fitted: Sequence[_Part],
    validation: Sequence[_Part],
    options: TrainingOptions,
    progress: Progress = silent,
    what: str = "gate",
) -> GateFit:
    """Train ``module`` in place with Adam and keep the parameters that validate best.

    Args:
        module: What is trained.
        losses_of: The loss of every row of a batch, by the module as it is.
        fitted: Batches, in an order that the seed gives anew in every pass.
        validation: Batches that decide which parameters are kept.
        options: How.
        progress: Told of every pass.
        what: What progress calls the module.
    """

    def loss(parts: Sequence[_Part]) -> float:
        module.eval()
        with torch.no_grad():
            return float(torch.cat([losses_of(part) for part in parts]).mean())

    optimiser = torch.optim.Adam(module.parameters(), lr=options.rate)
    generator = torch.Generator().manual_seed(options.seed)
    losses = [loss(validation)]
    best: tuple[int, dict[str, Any]] = (0, copy.deepcopy(module.state_dict()))
    for epoch in range(1, options.epochs + 1):
        progress(f"train {what}", epoch, options.epochs)
        module.train()
        for number in torch.randperm(len(fitted), generator=generator).tolist():
            optimiser.zero_grad()
            losses_of(fitted[number]).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        losses.append(loss(validation))
        if losses[-1] < losses[best[0]]:
            best = (epoch, copy.deepcopy(module.state_dict()))
        if epoch - best[0] >= options.patience:
            break
    module.load_state_dict(best[1])
    module.eval()
    return GateFit(best[0], len(losses) - 1, tuple(losses))
