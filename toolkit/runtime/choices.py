"""What runners say of the experts that their sparse layers choose, beside their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.runtime.base import Feeds, Outputs, Runner
from toolkit.runtime.wrapping import Wrapped

__all__ = ["Choice", "Watched", "choices_in"]

_MARK = "routing"
_BETWEEN = " | "


@dataclass(frozen=True)
class Choice:
    """Names an array that tells of a router.

    Without scores the array holds the experts of every token, int64 [T, k]. With scores it holds
    what a selection was made among, [T, n]: a router may choose groups first and experts then.

    Attributes:
        member: Path of the model in its ensemble; empty where there is one model.
        place: Of the router among those of its model, in the order they run.
        layer: What it is called there.
        scores: The place of the selection among those of the router; None for the ids. -1 is the
            last, whose scores may be a monotone function of what another runtime compares.
        top: How many the selection takes; 0 where that is not known.
    """

    member: str
    place: int
    layer: str
    scores: int | None = None
    top: int = 0

    @property
    def name(self) -> str:
        """Its name among a runner's outputs."""
        what = "ids" if self.scores is None else f"{self.scores} {self.top}"
        return _BETWEEN.join((_MARK, self.member, str(self.place), what, self.layer))

    @classmethod
    def read(cls, name: str) -> Choice | None:
        """What a name says; None for an output of the model."""
        mark, *parts = name.split(_BETWEEN, 4)
        if mark != _MARK or len(parts) != 4:
            return None
        member, place, what, layer = parts
        if what == "ids":
            return cls(member, int(place), layer)
        scores, top = map(int, what.split())
        return cls(member, int(place), layer, scores, top)


def choices_in(found: Mapping[str, Any]) -> Outputs:
    """What tells of routers, without the model's own outputs."""
    return {name: array for name, array in found.items() if name.startswith(_MARK + _BETWEEN)}


class Watched(Wrapped):
    """A graph that gives its routers' choices as further outputs, under the names of ``Choice``.

    Attributes:
        shipped: The graph without them: the very file that ships.
    """

    def __init__(
        self, runner: Runner, shipped: Runner, choices: Mapping[str, Sequence[Choice]]
    ) -> None:
        """Wrap ``runner``.

        Args:
            runner: Of the graph with further outputs.
            shipped: Of the graph as it ships.
            choices: By the name of an output, what it tells.
        """
        super().__init__(runner)
        self.shipped = shipped
        self._choices = dict(choices)

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the graph once."""
        found = self.inner(feeds)
        told = {one.name: found[name] for name, ones in self._choices.items() for one in ones}
        own = {name: array for name, array in found.items() if name not in self._choices}
        return {**own, **told}
