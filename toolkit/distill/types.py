"""What teachers, objectives and the training loop say to each other.

Everything is counted in *rows*: an example of a classifier, a position of a token model, one
sentence of an embedding. All positions of a batch are rows, flattened in order, N = B or B * S;
``mask`` says which count. See ``toolkit.distill.rows`` for which those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from torch import Tensor, nn

__all__ = [
    "COUNTED",
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
]

# A model's inputs by name; "labels" where the data has them, IGNORED where none counts; and
# "index" int64 [B], the numbers of the rows in the data set.
Batch: TypeAlias = Mapping[str, Tensor]

LABELS, INDEX, IGNORED = "labels", "index", -100
# Of a batch that the student wrote itself, which has no labels: positions that count, bool [B, S].
COUNTED = "counted"
# The output of sentence encoders.
EMBEDDING = "sentence_embedding"

Task: TypeAlias = Literal["classification", "causal-lm", "masked-lm", "seq2seq-lm", "embedding"]

# What several teachers are one target as; see ``toolkit.distill.targets``.
TargetKind: TypeAlias = Literal["mixture", "mean_of_kls", "mean_of_logits"]


@dataclass(frozen=True)
class Needs:
    """What an objective reads.

    Names are outputs of a model (``sentence_embedding``), ``hidden.{i}`` (transformers' hidden
    states, 0 being the embeddings; an encoder-decoder's decoder's), ``attention.{i}`` (attention
    probabilities of layer i), or the path of a module in a factory's model. Those of a member of
    an ensemble have its path before them: ``first/hidden.2``.

    Attributes:
        logits: Whether the student's logits and the teachers' distributions are read.
        student: Names of what is read in the student.
        teacher: Likewise in the teachers.
    """

    logits: bool = True
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()

    def __add__(self, other: Needs) -> Needs:
        """What either reads."""
        return Needs(
            self.logits or other.logits,
            tuple(dict.fromkeys((*self.student, *other.student))),
            tuple(dict.fromkeys((*self.teacher, *other.teacher))),
        )


@dataclass(frozen=True)
class Targets:
    """What the teachers say of one batch, without gradients.

    Either ``log_probs``, or ``ids``, ``kept`` and ``rest``, or neither where only ``hidden`` is
    asked for.

    Attributes:
        mask: Rows that count, bool [N].
        log_probs: Logarithm of the target distribution, float32 [N, V].
        ids: Classes of a compressed distribution, int64 [N, K]; those whose ``kept`` is -inf are
            no classes but fill the row.
        kept: Their log probabilities, float32 [N, K].
        rest: Logarithm of what is left for all other classes, float32 [N]; -inf if nothing is.
        per_teacher: Logits of each teacher, [N, V]; only for the target ``mean_of_kls``.
        weights: Theirs, [M] or, with a gate, [N, M].
        hidden: Whatever ``Needs.teacher`` names, as the models give it.
        temperature: T where the distribution is the softmax of log probabilities divided by T.
    """

    mask: Tensor
    log_probs: Tensor | None = None
    ids: Tensor | None = None
    kept: Tensor | None = None
    rest: Tensor | None = None
    per_teacher: tuple[Tensor, ...] = ()
    weights: Tensor | None = None
    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0


@dataclass(frozen=True)
class StudentOutputs:
    """What the student says of one batch.

    Attributes:
        logits: [N, V]; None where ``Needs.logits`` is not set.
        hidden: Whatever ``Needs.student`` names, as the model gives it.
        mask: Rows that count, bool [N].
    """

    logits: Tensor | None
    hidden: Mapping[str, Tensor]
    mask: Tensor


@dataclass(frozen=True)
class Loss:
    """A sum over rows, so that parts of a batch add up to the same loss however it is cut.

    Attributes:
        total: Scalar with gradients: the sum of the losses of the rows that count.
        count: Scalar int64: how many count. It is the number of True in the mask.
    """

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss of a row on average; 0 where none counts."""
        return self.total / self.count.clamp(min=1)


class Teacher(Protocol):
    """One or several models as one target; a tree of runners, or what they said kept on disk."""

    def targets(self, batch: Batch) -> Targets:
        """What is to be learnt of a batch; tensors are on the batch's device."""


class Objective(Protocol):
    """What a student is to minimise."""

    @property
    def needs(self) -> Needs:
        """What it reads."""

    def __call__(self, student: StudentOutputs, targets: Targets, batch: Batch) -> Loss:
        """The sum of the losses of the rows that count."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Projections that it learns together with the student."""
