"""Distillation: one student taught by one model or by an ensemble of them."""

from toolkit.distill.rows import flat, row_labels, row_mask
from toolkit.distill.types import (
    EMBEDDING,
    IGNORED,
    INDEX,
    LABELS,
    Batch,
    Loss,
    Needs,
    Objective,
    StudentOutputs,
    TargetKind,
    Targets,
    Task,
    Teacher,
)

__all__ = [
    "EMBEDDING",
    "IGNORED",
    "INDEX",
    "LABELS",
    "Batch",
    "Loss",
    "Needs",
    "Objective",
    "StudentOutputs",
    "TargetKind",
    "Targets",
    "Task",
    "Teacher",
    "flat",
    "row_labels",
    "row_mask",
]
