"""Counts the tokens that a runner sends to other experts than the reference, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.parity.excuses import SHUT, excess
from toolkit.parity.selections import Place, Router

__all__ = ["Tallies", "Tally", "Thresholds", "thresholds"]

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]

# Two scores may move towards each other, and each twice as far as was seen.
_SAFETY = 4.0
# and never less than this many units in the last place of float32.
_LEAST = 16.0 * 2.0**-23

Thresholds = Mapping[Place, Mapping[int, float]]
"""By router and selection: the largest distance of two scores that rounding may turn."""


@dataclass
class Tally:
    """One router over all cases.

    Attributes:
        layer: Its name in PyTorch.
        experts: E.
        k: Choices of a token.
        tokens: Compared.
        same: Of these, sent to the same set of experts.
        near: Sent to others, by a distance that rounding may turn.
        beyond: Sent to others, by more than that.
        behind: Sent to others, behind a token or layer where that happened before: its scores are
            those of another context, so that its own choice says nothing.
        load: Slots of each expert; ``wanted`` the reference's.
        moved: By selection, the largest distance of a score from the reference's.
        size: By selection, the largest score.
        worst: How many times the threshold the token farthest beyond is off, and its case.
        idle: Cases in which some expert had no token.
        single: Cases in which all tokens chose the same experts.
    """

    layer: str
    experts: int
    k: int
    tokens: int = 0
    same: int = 0
    near: int = 0
    beyond: int = 0
    behind: int = 0
    load: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    wanted: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    moved: dict[int, float] = field(default_factory=dict)
    size: dict[int, float] = field(default_factory=dict)
    worst: tuple[float, str] = (0.0, "")
    idle: int = 0
    single: int = 0


@dataclass
class Tallies:
    """What a runner chose, case after case.

    Attributes:
        causal: Whether a position depends on none behind it.
        limits: What counts as a near tie; None for a runner that others are judged by, whose own
            choice is never wrong.
        routers: By place.
        mismatch: Why nothing can be said, if so.
        left_out: Tokens that are not compared, of ``tokens``.
    """

    causal: bool
    limits: Thresholds | None = None
    routers: dict[Place, Tally] = field(default_factory=dict)
    mismatch: str = ""
    tokens: int = 0
    left_out: int = 0

    def add(
        self,
        wanted: Mapping[Place, Router],
        found: Mapping[Place, Router],
        valid: _Mask,
        case: str,
    ) -> _Mask | None:
        """Count a case; the tokens [B, P] whose outputs hang on a near tie, None if there are none.

        A token that goes to other experts is another one from there on, and so is what attends
        to it. For a runner that others are judged by, every such token counts as a near tie.
        """
        if not self._comparable(wanted, found):
            return None
        tainted: dict[str, _Mask] = {}
        out = np.zeros_like(valid)
        for place, router in wanted.items():
            before = tainted.setdefault(place[0], np.zeros_like(valid))
            differs, near = self._count(place, router, found[place], valid, before, case)
            tainted[place[0]] = before | self._spread(differs)
            out |= self._spread(differs if self.limits is None else near)
        self.tokens += int(valid.sum())
        self.left_out += int((out & valid).sum())
        return out if out.any() else None

    def _comparable(self, wanted: Mapping[Place, Router], found: Mapping[Place, Router]) -> bool:
        shapes = [{place: one.ids.shape for place, one in side.items()} for side in (wanted, found)]
        if shapes[0] != shapes[1]:
            self.mismatch = (
                f"PyTorch shows {len(wanted)} routers, the graph {len(found)}"
                if len(wanted) != len(found)
                else "the graph's routers take other tokens than PyTorch's"
            )
        return not self.mismatch and bool(wanted)

    def _spread(self, tokens: _Mask) -> _Mask:
        """The positions that read one of these."""
        if self.causal:
            return np.asarray(np.logical_or.accumulate(tokens, axis=1))
        return np.broadcast_to(tokens.any(axis=1, keepdims=True), tokens.shape)

    def _count(  # noqa: PLR0913, PLR0917  (each is a different thing)
        self, place: Place, wanted: Router, found: Router, valid: _Mask, tainted: _Mask, case: str
    ) -> tuple[_Mask, _Mask]:
        tally = self._tally(place, wanted)
        differs = valid & (np.sort(wanted.ids) != np.sort(found.ids)).any(axis=-1)
        fresh = differs & ~tainted
        self._measure(tally, wanted, found, valid & ~tainted)
        near = fresh & self._turned(tally, place, wanted, found, fresh, case)
        tally.tokens += int(valid.sum())
        tally.same += int((valid & ~differs).sum())
        tally.near += int(near.sum())
        tally.beyond += int((fresh & ~near).sum())
        tally.behind += int((differs & tainted).sum())
        own = np.bincount(found.ids[valid].ravel(), minlength=tally.experts)[: tally.experts]
        tally.load += own
        tally.wanted += np.bincount(wanted.ids[valid].ravel(), minlength=tally.experts)[
            : tally.experts
        ]
        tally.idle += int(own.min(initial=1) == 0)
        tally.single += int(valid.sum() > 1 and (own > 0).sum() == tally.k)
        return differs, near

    def _tally(self, place: Place, router: Router) -> Tally:
        if place not in self.routers:
            sizes = [scores.shape[-1] for _, scores in router.selections.values()]
            count = max([*sizes, int(router.ids.max(initial=0)) + 1])
            empty = np.zeros(count, np.int64)
            self.routers[place] = Tally(
                router.layer, count, router.ids.shape[-1], load=empty.copy(), wanted=empty
            )
        return self.routers[place]

    @staticmethod
    def _measure(tally: Tally, wanted: Router, found: Router, clean: _Mask) -> None:
        """How far scores are from the reference's, where the context is the same."""
        for number, (_, scores) in wanted.selections.items():
            open_to = scores > SHUT
            size = float(np.abs(scores[open_to]).max(initial=0.0))
            tally.size[number] = max(tally.size.get(number, 0.0), size)
            moved = _distance(scores[clean], number, wanted, found, clean)
            if moved is not None:
                tally.moved[number] = max(tally.moved.get(number, 0.0), moved)

    def _turned(  # noqa: PLR0913, PLR0917
        self, tally: Tally, place: Place, wanted: Router, found: Router, fresh: _Mask, case: str
    ) -> _Mask:
        """Tokens [B, P] that rounding may have sent to other experts."""
        turned = np.zeros_like(fresh)
        if self.limits is None:
            return turned
        limits = self.limits.get(place, {})
        for row, position in np.argwhere(fresh).tolist():
            token = (row, position)
            times = excess(wanted, found.ids[token].tolist(), token, tally.experts, limits)
            turned[token] = times <= 1
            if times > 1:
                tally.worst = max(tally.worst, (times, case))
        return turned


def _distance(
    scores: _Array, number: int, wanted: Router, found: Router, clean: _Mask
) -> float | None:
    """The largest error of one selection's scores; None if the runner does not tell them."""
    if number in found.selections:
        return _largest(scores, found.selections[number][1][clean])
    if -1 not in found.selections:
        return None
    # A graph shows what its TopK compares: the same scores, or what they are a function of.
    graph = found.selections[-1][1]
    last = [key for key, (_, s) in wanted.selections.items() if s.shape[-1] == graph.shape[-1]]
    if not last:
        return None
    if number in last:
        maps = (lambda z: z, _softmax, lambda z: 0.5 + 0.5 * np.tanh(0.5 * z))
        return min(_largest(scores, each(graph[clean].astype(np.float64))) for each in maps)
    # A group's score is that of its best expert, or the sum of its best two.
    own = _distance(wanted.selections[last[-1]][1][clean], last[-1], wanted, found, clean)
    return None if own is None else 2 * own


def _largest(wanted: _Array, found: _Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        # Zero is what DeepSeek masks with: one side may have shut a group that the other took.
        both = np.isfinite(wanted) & np.isfinite(found) & (wanted != 0) & (found != 0)
        both &= (wanted > SHUT) & (found > SHUT)
        off = np.abs(np.where(both, wanted - found, 0.0))
    return float(off.max(initial=0.0))


def _softmax(z: _Array) -> _Array:
    odds = np.exp(z - z.max(axis=-1, keepdims=True))
    share: _Array = odds / odds.sum(axis=-1, keepdims=True)
    return share


def thresholds(baselines: Sequence[Tallies]) -> Thresholds:
    """What rounding may turn, from how far it moved the scores of healthy runs.

    A selection whose scores no healthy run tells has no threshold, so that no difference in it is
    excused.
    """
    limits: dict[Place, dict[int, float]] = {}
    for one in baselines:
        for place, tally in one.routers.items():
            known = limits.setdefault(place, {})
            for number, moved in tally.moved.items():
                least = max(_SAFETY * moved, _LEAST * tally.size.get(number, 0.0))
                known[number] = max(known.get(number, 0.0), least)
    return limits
