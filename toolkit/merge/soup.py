"""Model soups (Wortsman et al. 2022, arXiv:2203.05482): averages of fine-tunes, chosen by score.

Not imported by ``toolkit.merge`` itself: scoring runs the models, which needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from toolkit.errors import MergeError
from toolkit.merge.config import from_mapping
from toolkit.merge.evaluators import Evaluator
from toolkit.merge.merging import merge_configs
from toolkit.merge.options import DEFAULTS, MergeOptions
from toolkit.progress import Progress, silent

__all__ = ["DEFAULT_SOUP", "SoupMember", "SoupOptions", "SoupReport", "SoupStep", "make_soup"]

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SoupMember:
    """A fine-tune.

    Attributes:
        name: What tables call it.
        weights: Its folder or safetensors file.
        load: Gives it as a module that takes inputs by keyword and returns a tuple.
    """

    name: str
    weights: Path
    load: Callable[[], nn.Module] = field(repr=False)


@dataclass(frozen=True)
class SoupOptions:
    """How to make a soup.

    Attributes:
        kind: ``greedy`` keeps a member if the score does not fall, ``uniform`` keeps all.
        merge: How to write it.
    """

    kind: Literal["uniform", "greedy"] = "greedy"
    merge: MergeOptions = DEFAULTS


DEFAULT_SOUP = SoupOptions()


@dataclass(frozen=True)
class SoupStep:
    """One candidate.

    Attributes:
        name: The member that was tried.
        alone: Its own score.
        together: The score of the soup with it; its own for the first.
        kept: Whether it stayed in.
    """

    name: str
    alone: float
    together: float
    kept: bool


@dataclass(frozen=True)
class SoupReport:
    """What a soup was made of.

    Attributes:
        kind: ``uniform`` or ``greedy``.
        metric: What scores are.
        steps: Every member, in the order it was tried.
        score: Of the soup as it was decided on.
        out: The folder.
    """

    kind: str
    metric: str
    steps: tuple[SoupStep, ...]
    score: float
    out: Path

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the members that went in."""
        return tuple(step.name for step in self.steps if step.kept)

    @property
    def best(self) -> float:
        """The best score of a single member."""
        return max(step.alone for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        steps = [vars(step) for step in self.steps]
        return {
            "kind": self.kind,
            "metric": self.metric,
            "steps": steps,
            "score": self.score,
            "best_member": self.best,
            "out": str(self.out),
        }


def make_soup(
    members: Sequence[SoupMember],
    evaluator: Evaluator,
    out: Path,
    options: SoupOptions = DEFAULT_SOUP,
    progress: Progress = silent,
) -> SoupReport:
    """Score members, decide, and write the average of those that were kept.

    A greedy soup sorts members by score and adds each in turn if the score does not fall (``>=``,
    as the paper has it; its authors' code asks for ``>``). The soup of a step is scored from a
    running sum: only the member that is tried is read.

    Args:
        members: Two or more fine-tunes of one checkpoint.
        evaluator: Scores a module; larger is better.
        out: The folder; its weights are the exact average, computed as ``uniform_soup`` does.
        options: Which members, and how to merge.
        progress: Told members scored, then bytes merged.

    Raises:
        MergeError: If members do not fit together, or are named twice.
    """
    _check(members)
    scores = {}
    for number, member in enumerate(members):
        progress("scoring members", number, len(members))
        scores[member.name] = evaluator.score(member.load())
    steps, score = _decide(members, scores, evaluator, options.kind, progress)
    kept = {step.name for step in steps if step.kept}
    _write([m for m in members if m.name in kept], out, options.merge, progress)
    return SoupReport(options.kind, evaluator.metric, tuple(steps), score, out)


def _check(members: Sequence[SoupMember]) -> None:
    names = [member.name for member in members]
    if len(names) < 2 or len(set(names)) < len(names):
        raise MergeError(f"a soup takes two or more members of different names, not {names}")


def _decide(
    members: Sequence[SoupMember],
    scores: Mapping[str, float],
    evaluator: Evaluator,
    kind: str,
    progress: Progress,
) -> tuple[list[SoupStep], float]:
    # Members of equal score stay in the order they were given.
    order = sorted(members, key=lambda member: -scores[member.name])
    pot = _Pot(order[0])
    best = scores[order[0].name]
    steps = [SoupStep(order[0].name, best, best, kept=True)]
    for number, member in enumerate(order[1:], 1):
        progress("trying members", number, len(order))
        together = evaluator.score(pot.with_member(member))
        kept = kind == "uniform" or together >= best
        if kept:
            best = together
            pot.keep()
        steps.append(SoupStep(member.name, scores[member.name], together, kept))
    return steps, best


class _Pot:
    """The running sum of kept members, and a module to taste it with."""

    def __init__(self, first: SoupMember) -> None:
        self._module = first.load()
        self._sum = _sums(self._module)
        self._count = 1
        self._tried: State = {}

    def with_member(self, member: SoupMember) -> nn.Module:
        """The average with one more member, as a module that the next call changes."""
        self._tried = _sums(member.load())
        if _shapes(self._tried) != _shapes(self._sum):
            raise MergeError(f"soup member {member.name!r} has other tensors than the first")
        with torch.no_grad():
            for name, target in self._module.state_dict().items():
                if name in self._sum:
                    mean = (self._sum[name] + self._tried[name]) / (self._count + 1)
                    target.copy_(mean)
        return self._module

    def keep(self) -> None:
        """Keep the member that was tried last."""
        for name in self._sum:
            self._sum[name] += self._tried[name]
        self._count += 1


def _sums(module: nn.Module) -> State:
    """Floating-point tensors of a module as float64, to be added to."""
    found = module.state_dict()
    return {name: t.double() for name, t in found.items() if t.is_floating_point()}


def _shapes(state: State) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _write(
    members: Sequence[SoupMember], out: Path, options: MergeOptions, progress: Progress
) -> None:
    config = from_mapping(
        {
            "merge_method": "uniform_soup" if len(members) > 1 else "passthrough",
            "models": [{"model": str(member.weights.absolute())} for member in members],
        }
    )
    merge_configs([config], out, replace(options, confined=False), progress)
