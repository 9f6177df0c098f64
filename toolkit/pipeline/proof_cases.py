"""The cases of a plan's proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.checkpoint import expert_counts
from toolkit.feeds import Case, caches_of, cases, make_feeds, real_cases
from toolkit.parity import decode_cases
from toolkit.pipeline.plan import Plan
from toolkit.runtime import Array, Feeds, Outputs, Runner
from toolkit.sources import HuggingFaceSource

__all__ = ["proof_cases", "recorded", "tokenizer_of"]


def proof_cases(plan: Plan) -> tuple[Case, ...]:
    """Real inputs first, where the recipe names some; then decoding; then the seeded ones.

    Raises:
        RecipeError: If the real inputs do not fit the model.
    """
    settings = plan.recipe.parity
    drawn = cases(plan.inputs, plan.shapes, seed=plan.recipe.parity_seed, count=settings.cases)
    seed, outputs = plan.recipe.parity_seed, plan.root.outputs
    decoded = decode_cases(plan.inputs, outputs, plan.shapes, seed=seed)
    drawn = (*_one_token(plan), *drawn)
    real: tuple[Case, ...] = ()
    if settings.inputs is not None:
        real = real_cases(settings.inputs.path, plan.inputs, plan.shapes, tokenizer_of(plan))
    return (*real, *decoded, *drawn)


def _one_token(plan: Plan) -> tuple[Case, ...]:
    """For decoders with experts: the same token everywhere and no cache, so all go one way.

    Without a cache as input, the case of the smallest values is that already.
    """
    caches = caches_of(plan.inputs, plan.root.outputs)
    if caches is None or not any(_sparse(leaf.origin) for _, leaf in plan.leaves()):
        return ()
    past = str(next(spec for spec in plan.inputs if spec.name == caches.past[0]).shape[2])
    if plan.shapes[past].min > 0:
        return ()
    dims = {name: 0 if name == past else span.opt for name, span in plan.shapes.items()}

    def make() -> dict[str, Array]:
        feeds = make_feeds(plan.inputs, dims, np.random.default_rng(0), "smallest")
        ids = feeds[caches.ids]
        return {**feeds, **caches.feeds(ids, caches.empty(len(ids)), feeds)}

    return (Case("one token everywhere", "adversarial", dims, make),)


def _sparse(origin: object) -> bool:
    return (
        isinstance(origin, HuggingFaceSource) and expert_counts(origin.config.to_dict()) is not None
    )


def recorded(case: Case, runner: Runner) -> list[dict[str, Array]]:
    """What a case feeds a model: once, or step by step where it feeds on the model's outputs."""
    if case.drive is None:
        return [case.feeds()]
    steps: list[dict[str, Array]] = []
    with runner as run:

        def noted(feeds: Feeds) -> Outputs:
            steps.append(dict(feeds))
            return run(feeds)

        case.run(noted)
    return steps


def tokenizer_of(plan: Plan) -> Path | None:
    """The first ``tokenizer.json`` of the plan's models."""
    for _, leaf in plan.leaves():
        if isinstance(leaf.origin, HuggingFaceSource):
            path = leaf.origin.folder / "tokenizer.json"
            return path if path.is_file() else None
    return None
