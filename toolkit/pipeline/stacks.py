"""A stack of a plan: stages, what is fed from one to another, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.artifacts import TensorSpec
from toolkit.errors import RecipeError
from toolkit.pipeline.interface import join_inputs

if TYPE_CHECKING:
    from toolkit.pipeline.nodes import Node

__all__ = ["FeedPlan", "StackPlan", "check_dimensions", "check_feeds"]


@dataclass(frozen=True)
class FeedPlan:
    """An output of an earlier stage, and what later stages take it as."""

    stage: str
    output: str
    spec: TensorSpec


@dataclass(frozen=True)
class StackPlan:
    """Stages in order; ``feeds`` are inputs of later ones that earlier ones give."""

    name: str
    stages: tuple[Node, ...]
    feeds: Mapping[str, FeedPlan]
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Node, ...]:
        """The models below it."""
        return self.stages

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of its stages' inputs, feeds left out, under the stack's names."""
        fed = [feed.spec for feed in self.feeds.values()]
        stages = [(stage.name, stage.inputs, stage.rename) for stage in self.stages]
        return tuple(spec for spec in join_inputs(stages, fed) if spec.name not in self.feeds)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The last stage's."""
        return self.stages[-1].outputs

    def fed(self, stage: Node) -> dict[str, FeedPlan]:
        """The feeds that a stage takes."""
        taken = _taken(stage)
        return {name: feed for name, feed in self.feeds.items() if name in taken}


def check_feeds(stack: StackPlan) -> None:
    """Feeds come from stages before those that take them, and every stage is of use.

    Raises:
        RecipeError: If not; names the feed or the stage, and what there is.
    """
    stages, feeds = stack.stages, stack.feeds
    names = [stage.name for stage in stages]
    for feed, source in feeds.items():
        who = f"feed {feed!r} of stack {stack.name!r}"
        if source.stage not in names[:-1]:
            last = " the last stage," if source.stage == names[-1] else " no stage of it:"
            raise RecipeError(
                f"{who} comes from{last} {source.stage!r}",
                hint="stages before the last are " + ", ".join(names[:-1]),
            )
        place = names.index(source.stage)
        if source.output not in stages[place].outputs:
            raise RecipeError(
                f"{who} is output {source.output!r} of stage {source.stage!r}, which has none "
                "of that name",
                hint="its outputs are " + ", ".join(stages[place].outputs),
            )
        takers = [stage.name for stage in stages if feed in _taken(stage)]
        early = [name for name in takers if names.index(name) <= place]
        if early:
            raise RecipeError(
                f"stage {early[0]!r} takes {feed!r}, which is fed from stage {source.stage!r} and "
                "not before it",
                hint="put that stage first, or give one of the two another name",
            )
        if not takers:
            behind = sorted(set().union(*map(_taken, stages[place + 1 :])) - set(feeds))
            raise RecipeError(
                f"{who} is taken by no stage behind {source.stage!r}",
                hint=f"they take {', '.join(behind) or 'feeds only'}; join names with a stage's "
                "rename: {…}",
            )
    used = {source.stage for source in feeds.values()}
    idle = [name for name in names[:-1] if name not in used]
    if idle:
        raise RecipeError(
            f"stage {idle[0]!r} of stack {stack.name!r} feeds no other stage, so it is of no use",
            hint="feed one of its outputs to a later stage, or leave it out",
        )


def check_dimensions(feeds: Iterable[TensorSpec], inputs: Sequence[TensorSpec]) -> None:
    """Named dimensions of feeds are dimensions of the graph's inputs, which alone have ranges.

    Raises:
        RecipeError: If one is not.
    """
    known = {symbol for spec in inputs for symbol in spec.symbols}
    for feed in feeds:
        unknown = [symbol for symbol in feed.symbols if symbol not in known]
        if unknown:
            raise RecipeError(
                f"feed {feed.name!r} is {feed}, and no input of the graph has a dimension "
                f"{unknown[0]!r}",
                hint="inputs have " + (", ".join(sorted(known)) or "fixed sizes only"),
            )


def _taken(stage: Node) -> set[str]:
    return {stage.rename.get(spec.name, spec.name) for spec in stage.inputs}
