"""Configs of several documents: which merge is made of which, and in what order."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.errors import MergeError
from toolkit.merge.config import MergeConfig

__all__ = ["in_order"]


def in_order(configs: Sequence[MergeConfig]) -> list[MergeConfig]:
    """Sort documents so that each follows those it uses; the last is the result.

    A document is used by its ``name``, in place of a model or with an adapter (``name+adapter``).

    Raises:
        MergeError: If names repeat, documents use each other in a circle, or there is not exactly
            one that no other uses.
    """
    if len(configs) == 1:
        return list(configs)
    named = _named(configs)
    # By identity: two documents may say the same.
    uses = {id(c): [n for n in _references(c) if n in named] for c in configs}
    results = [c for c in configs if not any(c.name in used for used in uses.values())]
    ordered: list[MergeConfig] = []
    for config in results:
        _visit(config, named, uses, ordered, ())
    if len(ordered) < len(configs):
        rest = next(c for c in configs if not any(c is done for done in ordered))
        _visit(rest, named, uses, ordered, ())
    if len(results) != 1:
        names = [c.name or "one without a name" for c in results]
        raise MergeError(
            f"{len(results)} documents are used by no other ({', '.join(names)}), and one result "
            "is wanted"
        )
    return ordered


def _named(configs: Sequence[MergeConfig]) -> dict[str, MergeConfig]:
    named: dict[str, MergeConfig] = {}
    for config in configs:
        if config.name is None:
            continue
        if config.name in named or "+" in config.name or not config.name:
            raise MergeError(f"document name {config.name!r} is used twice, empty or holds a +")
        named[config.name] = config
    return named


def _references(config: MergeConfig) -> list[str]:
    return [reference.partition("+")[0] for reference in config.references()]


def _visit(
    config: MergeConfig,
    named: dict[str, MergeConfig],
    uses: dict[int, list[str]],
    ordered: list[MergeConfig],
    path: tuple[str, ...],
) -> None:
    name = config.name or ""
    if name and name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise MergeError(f"documents use each other in a circle: {circle}")
    if any(config is done for done in ordered):
        return
    for used in uses[id(config)]:
        _visit(named[used], named, uses, ordered, (*path, name))
    ordered.append(config)
