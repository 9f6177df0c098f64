"""Distillation: one student taught by one model or by an ensemble of them."""

from toolkit.distill.cache import CachedTeacher, CacheKey, write_cache
from toolkit.distill.compressing import Compression, compress
from toolkit.distill.divergences import DIVERGENCES, Divergence
from toolkit.distill.effect import CompressionEffect, measure_compression
from toolkit.distill.matching import Matching, MatchKind, Pair
from toolkit.distill.objectives import HardLabels, Weighted, WordLevel, mixed
from toolkit.distill.rows import flat, row_labels, row_mask
from toolkit.distill.teachers import LiveTeacher
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
    "DIVERGENCES",
    "EMBEDDING",
    "IGNORED",
    "INDEX",
    "LABELS",
    "Batch",
    "CacheKey",
    "CachedTeacher",
    "Compression",
    "CompressionEffect",
    "Divergence",
    "HardLabels",
    "LiveTeacher",
    "Loss",
    "MatchKind",
    "Matching",
    "Needs",
    "Objective",
    "Pair",
    "StudentOutputs",
    "TargetKind",
    "Targets",
    "Task",
    "Teacher",
    "Weighted",
    "WordLevel",
    "compress",
    "flat",
    "measure_compression",
    "mixed",
    "row_labels",
    "row_mask",
    "write_cache",
]
