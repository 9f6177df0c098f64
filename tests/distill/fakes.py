"""Students, teachers and rows for the training loop, small enough for hundreds of steps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toolkit.distill import HardLabels, Matching, Pair, Targets, Weighted, WordLevel
from toolkit.distill.data import Examples
from toolkit.distill.loop import Training, train_student
from toolkit.distill.options import LoopOptions
from toolkit.distill.speaking import FactorySpeaker
from toolkit.distill.state import Store

FEATURES, CLASSES = 6, 4


class Net(nn.Module):
    """Two layers with dropout between them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 8)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x):
        return (self.last(self.dropout(torch.tanh(self.first(x)))),)


class Wrapped(nn.Module):
    """What sources make of a factory's module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


class LinearTeacher:
    """A fixed softmax regression, and a fixed hidden state."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.weights = 2 * torch.randn(FEATURES, CLASSES, generator=generator)
        self.rows: list[int] = []

    def targets(self, batch):
        self.rows.extend(batch["index"].tolist())
        logits = batch["x"] @ self.weights
        mask = torch.ones(len(logits), dtype=torch.bool)
        return Targets(mask, logits.log_softmax(-1), hidden={"first": torch.tanh(batch["x"])})


def examples(count: int = 60, held: int = 12) -> Examples:
    """Rows whose labels are mostly the teacher's."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, FEATURES, generator=generator)
    noise = torch.randn(count, CLASSES, generator=generator)
    labels = (x @ LinearTeacher().weights + noise).argmax(-1)
    rows = torch.arange(count)
    return Examples({"x": x, "labels": labels}, rows[held:], rows[:held], "fake")


def objective():
    """Labels, the teacher's distribution and a hidden state through a projection."""
    match = Matching("mse", [Pair("first", "first", 8, FEATURES)], seed=2)
    return Weighted([(0.3, HardLabels("classification")), (0.7, WordLevel()), (0.1, match)])


def training(dropout: float = 0.0, rows: Examples | None = None) -> Training:
    """A new student; always the same one."""
    goal = objective()
    torch.manual_seed(3)
    net = Wrapped(Net(dropout))
    speaker = FactorySpeaker(net, goal.needs, {"x": "x"}, ("logits",)).train()
    return Training(speaker, "classification", LinearTeacher(), goal, rows or examples())


def run(work: Path, options: LoopOptions, dropout: float = 0.0, **more):
    """Train and return the outcome."""
    return train_student(training(dropout), options, Store(work, "fake"), **more)
