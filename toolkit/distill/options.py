"""How a student is trained, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from toolkit.errors import RecipeError

__all__ = ["Judgement", "LoopOptions", "LoopReport"]


@dataclass(frozen=True)
class LoopOptions:
    """How to train.

    A *step* is one move of the optimizer by the mean loss of ``batch`` rows, however many
    processes and parts compute it.

    Attributes:
        steps: How many; None for ``epochs`` passes over the rows.
        epochs: Passes, where ``steps`` is None.
        batch: Rows of a step, over all processes.
        part: Most rows at a time on one process; None for all of its own. The gradients of parts
            are accumulated.
        rate: The highest learning rate of AdamW (Loshchilov & Hutter 2019).
        weight_decay: Of matrices; norms and biases have none.
        schedule: A name of ``transformers.get_scheduler``.
        warmup: Share of the steps in which the rate rises.
        clip: Largest norm of the gradient; 0 for no limit.
        precision: Of the arithmetic; weights stay in float32.
        evaluate: Steps between two looks at the held-out rows; None for once in a pass.
        patience: Looks without a better loss until training stops; None for never.
        checkpoint: Steps between two checkpoints; None for at every look.
        keep_zeros: Whether what is zero in the student's matrices at first stays so.
        device: ``auto`` takes a GPU where there is one.
        seed: Of the order of rows and of dropout.
    """

    steps: int | None = None
    epochs: float = 3.0
    batch: int = 32
    part: int | None = None
    rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 1.0
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    evaluate: int | None = None
    patience: int | None = None
    checkpoint: int | None = None
    keep_zeros: bool = False
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0

    def total(self, per_pass: int) -> int:
        """Steps in all, where a pass has ``per_pass``."""
        return self.steps or max(1, round(self.epochs * per_pass))

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "part", "evaluate", "patience", "checkpoint"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"training.{name} is {value}, wanted 1 or more")


@dataclass(frozen=True)
class Judgement:
    """What held-out rows say after some steps.

    Attributes:
        step: How many.
        loss: The objective's mean over rows.
        nll: Mean negative log likelihood of the labels in nats; None without any.
        accuracy: Share of labels that are the likeliest class; None without any.
    """

    step: int
    loss: float
    nll: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class LoopReport:
    """How training went.

    Attributes:
        steps: Steps that were made.
        planned: Steps that would have been made without an early stop.
        best: The step whose weights were kept.
        losses: The objective's mean of every step, from the first.
        judgements: Every look at the held-out rows.
        processes: How many trained together.
        seconds: Of the training, over all its resumptions.
        units: Tokens or rows per second in this session.
        unit: ``tokens`` or ``rows``.
        precision: Of the arithmetic.
    """

    steps: int
    planned: int
    best: int
    losses: tuple[float, ...] = field(repr=False)
    judgements: tuple[Judgement, ...] = ()
    processes: int = 1
    seconds: float = 0.0
    units: float = 0.0
    unit: str = "rows"
    precision: str = "float32"

    def judged(self, step: int) -> Judgement | None:
        """The look at the held-out rows after ``step``, if there was one."""
        return next((one for one in self.judgements if one.step == step), None)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        found = asdict(self)
        found["losses"] = list(self.losses)
        found["judgements"] = [asdict(one) for one in self.judgements]
        return found
