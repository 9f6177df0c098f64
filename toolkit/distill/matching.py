"""Matching what is inside: embeddings, hidden states, attention, through learned projections.

    mse        mean over the width of (W s - t)^2: FitNets, Romero et al. 2014 (arXiv:1412.6550);
               for every layer of a transformer TinyBERT, Jiao et al. 2019 (arXiv:1909.10351)
    cosine     1 - cos(W s, t): for hidden states DistilBERT, Sanh et al. 2019 (arXiv:1910.01108);
               mse and cosine of sentence embeddings Reimers & Gurevych 2020 (arXiv:2004.09813)
    attention  mean over heads and keys of (sum_g M_hg A_g - A'_h)^2 (TinyBERT), where M, [heads of
               the teacher, heads of the student], is learnt if their numbers differ

W is the identity where widths agree and a learned [width of the teacher, width of the student]
without bias elsewhere. Several pairs are averaged. A row's loss is that of its position; where a
row is a whole example, the mean over its tokens that are no padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.distill.types import Batch, Loss, Needs, StudentOutputs, Targets
from toolkit.errors import RecipeError

__all__ = ["MatchKind", "Matching", "Pair"]

MatchKind: TypeAlias = Literal["mse", "cosine", "attention"]

_MASK = "attention_mask"


@dataclass(frozen=True)
class Pair:
    """What is matched with what.

    Attributes:
        student: A name of ``Needs.student``.
        teacher: A name of ``Needs.teacher``.
        student_width: Size of the last axis, or heads of attention [B, heads, S, S].
        teacher_width: Likewise.
    """

    student: str
    teacher: str
    student_width: int
    teacher_width: int


class Matching(nn.Module):
    """An objective: the mean over pairs of how far the student's tensor is from the teacher's."""

    def __init__(self, kind: MatchKind, pairs: Sequence[Pair], seed: int = 0) -> None:
        """Make projections where widths differ.

        Args:
            kind: The formula.
            pairs: What is matched.
            seed: Of the projections, which start as nn.Linear's do.
        """
        super().__init__()
        self.kind: MatchKind = kind
        self.pairs = tuple(pairs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projections = nn.ModuleList(
                nn.Identity()
                if pair.student_width == pair.teacher_width
                else nn.Linear(pair.student_width, pair.teacher_width, bias=False)
                for pair in self.pairs
            )

    @classmethod
    def of(
        cls,
        kind: MatchKind,
        names: Sequence[tuple[str, str]],
        said: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
        seed: int = 0,
    ) -> Matching:
        """With the widths of what student and teachers ``said`` of any batch, in this order.

        Args:
            kind: The formula.
            names: Of each pair, the student's first.
            said: Tensors by name.
            seed: Of the projections.

        Raises:
            RecipeError: If one does not say what is asked of it.
        """
        axis = 1 if kind == "attention" else -1
        pairs = []
        for pair in names:
            tensors = [_named(one, name) for one, name in zip(said, pair, strict=True)]
            widths = [int(tensor.shape[axis]) for tensor in tensors]
            pairs.append(Pair(*pair, widths[0], widths[1]))
        return cls(kind, pairs, seed)

    @property
    def needs(self) -> Needs:
        """The tensors of its pairs, and no logits."""
        students = tuple(dict.fromkeys(pair.student for pair in self.pairs))
        return Needs(False, students, tuple(dict.fromkeys(pair.teacher for pair in self.pairs)))

    def forward(self, student: StudentOutputs, targets: Targets, batch: Batch) -> Loss:
        """The sum over the rows that count of the mean over pairs."""
        total = None
        for pair, projection in zip(self.pairs, self.projections, strict=True):
            own, wanted = _named(student.hidden, pair.student), _named(targets.hidden, pair.teacher)
            if self.kind == "attention":
                apart = _attention(own, wanted, projection, batch)
            else:
                apart = _apart(self.kind, projection(own), wanted.to(own.dtype), pair)
            rows = _rows(apart, student.mask, batch)[student.mask].sum()
            total = rows if total is None else total + rows
        assert total is not None
        return Loss(total / len(self.pairs), student.mask.sum())


def _named(said: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in said:
        raise RecipeError(
            f"nothing called {name!r} was said, and it is to be matched",
            hint="there are " + (", ".join(said) or "no tensors but the logits"),
        )
    return said[name]


def _apart(kind: MatchKind, own: Tensor, wanted: Tensor, pair: Pair) -> Tensor:
    """[..., H] each to [...]."""
    if own.shape != wanted.shape:
        raise RecipeError(
            f"{pair.student!r} of the student has shape {list(own.shape)} and {pair.teacher!r} of "
            f"the teacher {list(wanted.shape)}: they are to be of the same positions"
        )
    if kind == "mse":
        return (own - wanted).square().mean(-1)
    apart: Tensor = 1 - functional.cosine_similarity(own, wanted, dim=-1)
    return apart


def _attention(own: Tensor, wanted: Tensor, heads: nn.Module, batch: Batch) -> Tensor:
    """[B, heads, S, S] each to [B, S]: of each query, the mean over heads and keys."""
    mixed: Tensor = heads(own.movedim(1, -1)).movedim(-1, 1)
    apart = (mixed - wanted.to(own.dtype)).square().mean(1)
    keys = batch.get(_MASK)
    if keys is None or keys.shape[-1] != apart.shape[-1]:
        return apart.mean(-1)
    real = keys.unsqueeze(1).to(apart.dtype)
    return (apart * real).sum(-1) / real.sum(-1).clamp(min=1)


def _rows(apart: Tensor, mask: Tensor, batch: Batch) -> Tensor:
    """Of each row: [B, S] or [B] to [N]."""
    if apart.numel() == mask.numel():
        return apart.reshape(-1)
    if apart.dim() == 2 and apart.shape[0] == mask.numel():
        real = batch[_MASK].to(apart.dtype) if _MASK in batch else torch.ones_like(apart)
        return (apart * real).sum(-1) / real.sum(-1).clamp(min=1)
    raise RecipeError(
        f"a matched tensor speaks of {list(apart.shape)} positions and the batch has "
        f"{mask.numel()} rows",
        hint="of an encoder-decoder model, the decoder's states are its rows",
    )
