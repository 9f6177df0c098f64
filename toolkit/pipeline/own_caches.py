"""Caches of members get names of their own: everything else that has one name is shared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.caches import CROSS, cache_names, of_member
from toolkit.errors import RecipeError
from toolkit.sources import HuggingFaceSource

if TYPE_CHECKING:
    from toolkit.pipeline.nodes import LeafPlan

__all__ = ["all_or_none", "own_caches"]


def own_caches(path: tuple[str, ...], leaf: LeafPlan) -> LeafPlan:
    """The model at ``path`` in an ensemble with its caches named after that path.

    Raises:
        RecipeError: If the recipe renames one of them.
    """
    names = [spec.name for spec in leaf.inputs]
    pairs = cache_names(names, leaf.outputs)
    taken = [*pairs, *(name for name in names if name.startswith(CROSS))]
    given = [*pairs.values(), *(name for name in leaf.outputs if name.startswith(CROSS))]
    if not path or not (taken or given):
        return leaf
    for name in leaf.rename:
        if name in taken:
            raise RecipeError(
                f"member {leaf.name!r} renames {name!r}, a cache, which belongs to it alone",
                hint=f"leave it out: in the ensemble it is called {of_member(name, path)}",
            )
    return replace(
        leaf,
        rename={**leaf.rename, **{name: of_member(name, path) for name in taken}},
        caches={name: of_member(name, path) for name in given},
    )


def all_or_none(leaves: Iterable[tuple[str, LeafPlan]]) -> None:
    """Refuse causal models with and without caches that read the same tokens.

    Raises:
        RecipeError: Naming one of each.
    """
    with_cache: dict[str, tuple[str, bool]] = {}
    for name, leaf in leaves:
        source = leaf.origin
        if not isinstance(source, HuggingFaceSource) or source.head != "causal-lm":
            continue
        ids = leaf.rename.get("input_ids", "input_ids")
        other, cached = with_cache.setdefault(ids, (name, source.cache))
        if cached != source.cache:
            first, second = (other, name) if cached else (name, other)
            raise RecipeError(
                f"member {first!r} has a cache and member {second!r} has none, but both read "
                f"{ids!r}, of which one would get the new tokens and the other all of them",
                hint="cache: true for both",
            )
