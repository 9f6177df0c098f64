"""Symbolic dimensions: named once under ``inputs``, ranged once under ``shapes``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from toolkit.artifacts import TensorSpec
from toolkit.recipe.problems import Problem, nearest

__all__ = ["check_shapes"]


def check_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, object]) -> list[Problem]:
    """Every symbol of the inputs must be ranged, and every range must be some input's symbol.

    The pipeline calls this too, for inputs that only a model folder or an ONNX file knows.
    """
    users: dict[str, str] = {}
    for spec in inputs:
        for symbol in spec.symbols:
            users.setdefault(symbol, spec.name)
    return [*_unranged(users, shapes), *_unused(users, shapes)]


def _unranged(users: Mapping[str, str], shapes: Mapping[str, object]) -> Iterator[Problem]:
    for symbol, user in users.items():
        if symbol not in shapes:
            yield Problem(
                ("shapes",),
                f"dimension {symbol!r} of input {user!r} has no range",
                f"add {symbol}: [min, opt, max] or one number",
            )


def _unused(users: Mapping[str, str], shapes: Iterable[str]) -> Iterator[Problem]:
    names = set(shapes)
    for name in shapes:
        if name not in users:
            # A name that is ranged already was not the one meant.
            free = [symbol for symbol in users if symbol not in names]
            yield Problem(
                ("shapes", name), "no input has this dimension", nearest(name, free or users)
            )
