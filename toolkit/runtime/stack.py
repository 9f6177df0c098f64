"""The meaning of a stack, computed by its stages' runners in order.

Like ``toolkit.runtime.ensemble`` a reference: it hands arrays on and shares no code with the
graphs that are proven against it. Stacked generalisation is Wolpert's (1992).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.artifacts import TensorSpec
from toolkit.runtime.base import Array, Feeds, Outputs, Runner
from toolkit.runtime.choices import choices_in
from toolkit.runtime.ensemble import undecided
from toolkit.runtime.wrapping import Gathered

__all__ = ["StackRunner"]


class StackRunner(Gathered):
    """Runs stages in order; outputs of one are fed to later ones, the last gives the result.

    Stages are any runners, ensembles and stacks included.
    """

    def __init__(self, stages: Sequence[Runner], feeds: Mapping[str, tuple[int, str]]) -> None:
        """Take stages over.

        Args:
            stages: In order.
            feeds: From the name of an input of later stages to the place of the stage that gives
                it and which of its outputs.
        """
        super().__init__(stages)
        self.stages = tuple(stages)
        self.name = self.stages[-1].name
        self._feeds = dict(feeds)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of the stages' inputs that are not fed."""
        specs = (spec for runner in self.stages for spec in runner.inputs)
        return tuple({spec.name: spec for spec in specs if spec.name not in self._feeds}.values())

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the stages once."""
        known = dict(feeds)
        found: Outputs = {}
        for place, runner in enumerate(self.stages):
            found = runner(known)
            known.update(self.passed(place, found))
        return self.result(found, known)

    def passed(self, place: int, found: Outputs) -> Outputs:
        """What a stage hands on, by feed; with undecided rows, and which experts it chose."""
        kept: Outputs = choices_in(found)
        for feed, (stage, output) in self._feeds.items():
            if stage == place:
                kept[feed] = found[output]
                if undecided(output) in found:
                    kept[undecided(feed)] = found[undecided(output)]
        return kept

    def result(self, found: Outputs, known: Feeds) -> Outputs:
        """The last stage's outputs; a row that came from an undecided one is undecided too.

        What a stage makes of a row is not known, so an undecided position leaves its whole
        example undecided, the leading dimension being that of the examples.
        """
        found = {**found, **choices_in(known)}
        marks = [known[undecided(feed)] for feed in self._feeds if undecided(feed) in known]
        if not marks:
            return found
        said = {undecided(name) for name in found} | set(choices_in(found))
        result = dict(found)
        for name in found.keys() - said:
            spread = [_examples(mark, found[name]) for mark in marks]
            own = [found[undecided(name)]] if undecided(name) in found else []
            result[undecided(name)] = np.logical_or.reduce(np.broadcast_arrays(*spread, *own))
        return result


def _examples(mark: Array, output: Array) -> Array:
    """Which examples hold something undecided, to broadcast against ``output``."""
    if output.ndim and mark.ndim and mark.shape[0] == output.shape[0]:
        rows = mark.reshape(mark.shape[0], -1).any(axis=1)
        return rows.reshape(-1, *[1] * (output.ndim - 1))
    return np.asarray(mark.any()).reshape([1] * output.ndim)
