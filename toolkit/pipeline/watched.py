"""Candidates and references that show which experts they choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import cast

import graphs
from toolkit.pipeline.plan import Plan
from toolkit.runtime import Choice, OrtRunner, Provider, Runner, RuntimeName, Watched, runs_plans
from toolkit.sources import HuggingFaceSource

__all__ = ["Watching", "is_causal", "member_of"]


class Watching:
    """Copies of graphs whose routers' choices are outputs; a context that outlives the runners.

    Weights are not copied, and the graphs themselves stay as they are.

    Attributes:
        hidden: Layers of experts whose choices no output can reach.
    """

    def __init__(self, plan: Plan) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        paths = [path for path, _ in plan.leaves()]
        self._members = sorted(paths, key=len, reverse=True) if len(paths) > 1 else []
        self._known: dict[Path, tuple[Path, tuple[graphs.WatchedRouter, ...]]] = {}
        self.hidden: tuple[str, ...] = ()

    def __enter__(self) -> Watching:
        """Make the folder of the copies."""
        self._folder = TemporaryDirectory()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the copies."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def runner(
        self, graph: Path, runtime: RuntimeName, label: str = "", *, optimise: bool = True
    ) -> Runner:
        """ONNX Runtime on a graph, with its choices if it has experts."""
        if runs_plans(runtime):
            raise ValueError(f"{runtime} runs engines, which show no choices")
        provider = cast("Provider", runtime)
        plain = OrtRunner(graph, optimise=optimise, provider=provider, label=label)
        copy, routers = self._copy(graph)
        if not routers:
            return plain
        wide = OrtRunner(
            copy, optimise=optimise, provider=provider, label=label, weights=graph.parent
        )
        return Watched(wide, plain, self._choices(routers))

    def _copy(self, graph: Path) -> tuple[Path, tuple[graphs.WatchedRouter, ...]]:
        """Made once for all runners of a graph."""
        if graph not in self._known:
            if self._folder is None:
                raise RuntimeError("Watching is used outside its with block")
            copy = Path(self._folder.name) / f"{len(self._known)}.onnx"
            routers, hidden = graphs.watch_routers(graph, copy)
            self._known[graph] = copy, routers
            self.hidden = tuple(dict.fromkeys((*self.hidden, *hidden)))
        return self._known[graph]

    def _choices(self, routers: Sequence[graphs.WatchedRouter]) -> dict[str, list[Choice]]:
        """By output, what it tells; routers are counted for each member."""
        count: Counter[str] = Counter()
        choices: dict[str, list[Choice]] = {}
        for router in routers:
            member = next((m for m in self._members if router.ids.startswith(m + "/")), "")
            place = count[member]
            count[member] += 1
            choices.setdefault(router.ids, []).append(Choice(member, place, router.ids))
            if router.scores is not None:
                scores = Choice(member, place, router.ids, -1)
                choices.setdefault(router.scores, []).append(scores)
        return choices


def member_of(plan: Plan, leaf: object) -> str:
    """The path of a model in its ensemble; empty where it is the only one."""
    leaves = list(plan.leaves())
    return "" if len(leaves) < 2 else next((path for path, one in leaves if one is leaf), "")


def is_causal(plan: Plan) -> bool:
    """Whether every model of the plan is a causal language model."""
    origins = [leaf.origin for _, leaf in plan.leaves()]
    return all(isinstance(o, HuggingFaceSource) and o.head == "causal-lm" for o in origins)
