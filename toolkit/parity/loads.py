"""What a proof says of one layer of experts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ExpertRouting"]


@dataclass(frozen=True)
class ExpertRouting:
    """Where a candidate's router sends tokens, beside where the reference does, over all cases.

    Attributes:
        layer: The layer's name in PyTorch, behind its member's if there are several.
        experts: How many there are.
        k: How many a token is given.
        tokens: Compared; those under padding that nobody reads are not.
        same: Tokens that go to the same set of experts.
        near_ties: Tokens that go to others by a distance of scores that rounding was seen to
            turn; they and what reads them are not compared.
        beyond: Tokens that go to others by more than that: each is a failure.
        behind: Tokens that go to others behind a token or layer where that happened before.
        load: Slots of each expert.
        reference_load: The same of the reference.
        imbalance: The largest load over the mean.
        idle: Experts that no token of any case chose.
        idle_cases: Cases in which some expert had no token.
        single_cases: Cases of two tokens and more, all of which chose the same experts.
    """

    candidate: str
    layer: str
    experts: int
    k: int
    tokens: int
    same: int
    near_ties: int
    beyond: int
    behind: int
    load: tuple[int, ...]
    reference_load: tuple[int, ...]
    imbalance: float
    idle: int
    idle_cases: int
    single_cases: int
