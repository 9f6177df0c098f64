"""The meaning of models side by side: each gives what is its own, and nothing is combined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.artifacts import TensorSpec
from toolkit.caches import is_cache
from toolkit.runtime.base import Feeds, Outputs, Runner
from toolkit.runtime.wrapping import Gathered

__all__ = ["GroupRunner"]


class GroupRunner(Gathered):
    """Runs every member on the same feeds and gives the caches of each.

    Members are any runners whose caches have names of their own, groups included.
    """

    def __init__(self, members: Sequence[Runner]) -> None:
        super().__init__(members)
        self.members = tuple(members)
        self.name = self.members[0].name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of the members' inputs."""
        specs = (spec for runner in self.members for spec in runner.inputs)
        return tuple({spec.name: spec for spec in specs}.values())

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run every member once."""
        return self.gather(runner(feeds) for runner in self.members)

    def gather(self, parts: Iterable[Outputs]) -> Outputs:
        """The caches in what members gave."""
        named = ((name, array) for found in parts for name, array in found.items())
        return {name: array for name, array in named if is_cache(name)}
