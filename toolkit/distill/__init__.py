"""Distillation: one student taught by one model or by an ensemble of them."""

from toolkit.distill.bleu import sentence_bleu
from toolkit.distill.cache import CachedTeacher, CacheKey, write_cache
from toolkit.distill.compressing import Compression, compress
from toolkit.distill.continuing import Hypothesis, SearchOptions, Speak, beam_search, begin, sample
from toolkit.distill.divergences import DIVERGENCES, Divergence
from toolkit.distill.effect import CompressionEffect, measure_compression
from toolkit.distill.matching import Matching, MatchKind, Pair
from toolkit.distill.objectives import HardLabels, Weighted, WordLevel, mixed
from toolkit.distill.rows import flat, row_labels, row_mask
from toolkit.distill.sequences import (
    OnPolicy,
    SequenceKind,
    chosen,
    read_sequences,
    taught,
    write_sequences,
)
from toolkit.distill.teachers import LiveTeacher
from toolkit.distill.types import (
    COUNTED,
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
    "COUNTED",
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
    "Hypothesis",
    "LiveTeacher",
    "Loss",
    "MatchKind",
    "Matching",
    "Needs",
    "Objective",
    "OnPolicy",
    "Pair",
    "SearchOptions",
    "SequenceKind",
    "Speak",
    "StudentOutputs",
    "TargetKind",
    "Targets",
    "Task",
    "Teacher",
    "Weighted",
    "WordLevel",
    "beam_search",
    "begin",
    "chosen",
    "compress",
    "flat",
    "measure_compression",
    "mixed",
    "read_sequences",
    "row_labels",
    "row_mask",
    "sample",
    "sentence_bleu",
    "taught",
    "write_cache",
    "write_sequences",
]
