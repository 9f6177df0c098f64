"""What is wrong with a recipe: collected, placed in the file, and told in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from toolkit.errors import RecipeError

__all__ = ["Location", "Problem", "dotted", "nearest", "recipe_error", "shown"]

# Where a value is in the recipe: mapping keys and list indices from the top.
Location: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong.

    Attributes:
        path: Where in the recipe.
        message: What was found and what was wanted.
        hint: What to do about it; may be empty.
        line: Where in the file, from 1; 0 while that is not known.
    """

    path: Location
    message: str
    hint: str = ""
    line: int = 0

    def at(self, line: int) -> Problem:
        """The same with its line, unless that was known already."""
        return self if self.line else replace(self, line=line)


def shown(value: object) -> str:
    """A value as messages show it: on one line, quoted if it is text, and never long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = repr(value) if value.isprintable() else ascii(value)
    elif isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    elif isinstance(value, dict):
        return f"a mapping with {', '.join(map(shown, list(value)[:6]))}" if value else "{}"
    else:
        quoted = f"{value}"
    return quoted if len(quoted) <= 80 else f"{quoted[:60]}… ({len(quoted):,} characters)"


def dotted(path: Location) -> str:
    """``model.ensemble.members[1].weights``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = step if step and step.isprintable() and len(step) <= 80 else shown(step)
            text += f".{key}" if text else key
    return text or "recipe"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint: the valid name that was probably meant, or all of them."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "one of " + ", ".join(names) if names else ""


def recipe_error(source: str, problems: Sequence[Problem]) -> RecipeError:
    """One error for all problems: one line if there is one, else a header and a line for each."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    if len(ordered) == 1:
        (only,) = ordered
        return RecipeError(
            f"{source}:{only.line}: {dotted(only.path)}: {only.message}", hint=only.hint
        )
    lines = [f"{source} has {len(ordered)} problems:", *map(_told, ordered)]
    return RecipeError("\n".join(lines))


def _told(problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"  line {problem.line}: {dotted(problem.path)}: {problem.message}{hint}"
