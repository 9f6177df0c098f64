"""The base of every recipe model: all problems at once, in the recipe's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from toolkit.recipe.problems import Problem, nearest, shown

__all__ = ["TAGS", "LoadContext", "RecipeModel", "context_of", "invalid", "problems_of"]

Self = TypeVar("Self", bound="RecipeModel")

# The kinds of models and the tags that tell them apart inside pydantic.
_KINDS = "checkpoint factory onnx merge moe soup distill ensemble stack"
TAGS: Mapping[str, str] = {kind: f"<{kind}>" for kind in _KINDS.split()}

_PROBLEM = "recipe_problem"
_WANTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "more than {:g}"),
    "greater_than_equal": ("ge", "at least {:g}"),
    "less_than": ("lt", "less than {:g}"),
    "less_than_equal": ("le", "at most {:g}"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_too_short": ("min_length", "at least {} character"),
}


@dataclass(frozen=True)
class LoadContext:
    """What the command line says about the recipe being read.

    Attributes:
        root: The folder that paths are read against and confined to.
        explicit_root: Whether the user named it, which admits absolute paths inside it.
        allow_code: Whether the user agreed to run Python code that the recipe names.
        check_files: Whether the files that paths name must exist.
        to_come: Paths, as written, that need not exist yet.
    """

    root: Path
    explicit_root: bool
    allow_code: bool
    check_files: bool
    to_come: frozenset[str] = frozenset()


def context_of(info: ValidationInfo) -> LoadContext | None:
    """The context of a recipe read from a file; None for models built in Python."""
    return info.context if isinstance(info.context, LoadContext) else None


def invalid(message: str, hint: str = "") -> PydanticCustomError:
    """The error a validator raises: what was found and what was wanted."""
    return PydanticCustomError(_PROBLEM, "{message}", {"message": message, "hint": hint})


class RecipeModel(BaseModel):
    """A frozen mapping of the recipe.

    Subclasses say in ``cross_checks`` what must hold between keys. Those checks see the data as
    written, so that one wrong value does not hide another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def expand(cls, data: Any) -> Any:
        """Turn a short form, such as plain text, into the mapping it stands for."""
        return data

    @classmethod
    def cross_checks(cls, data: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """Problems between keys, from data whose values may have any type."""
        return iter(())

    @model_validator(mode="wrap")
    @classmethod
    def _report_all(cls: type[Self], data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        data = cls.expand(data)
        problems: list[Problem] = []
        if isinstance(data, dict):
            problems += cls._unknown_keys(data)
            problems += cls.cross_checks(data)
            data = {key: value for key, value in data.items() if key in cls.model_fields}
        try:
            model = handler(data)
        except ValidationError as error:
            problems += problems_of(error)
        else:
            if not problems:
                return model
        raise ValidationError.from_exception_data(
            cls.__name__, [_detail(p, data) for p in problems]
        )

    @classmethod
    def _unknown_keys(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        for key in data:
            if key not in cls.model_fields:
                yield Problem((key,), "unknown key", nearest(key, cls.model_fields))


def problems_of(error: ValidationError) -> Iterator[Problem]:
    """A validation error in the recipe's words, each problem once."""
    details = error.errors(include_url=False)
    # pydantic runs the checks of a model that holds itself twice at its top.
    return iter(dict.fromkeys(map(_problem, details)))


def _detail(problem: Problem, data: Any) -> InitErrorDetails:
    return InitErrorDetails(
        type=invalid(problem.message, problem.hint), loc=problem.path, input=data
    )


def _problem(error: ErrorDetails) -> Problem:
    # Pydantic adds the tags of the model union and a mark for keys; the recipe has neither.
    path = tuple(step for step in error["loc"] if step != "[key]" and step not in TAGS.values())
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == _PROBLEM:
        return Problem(path, context["message"], context["hint"])
    if kind == "missing":
        return Problem(path, "required key is missing")
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        return _literal(path, found, names)
    if kind in _WANTED:
        return Problem(path, f"found {shown(found)}, wanted {_WANTED[kind]}")
    if kind in _BOUNDS:
        key, wanted = _BOUNDS[kind]
        return Problem(path, f"found {shown(found)}, wanted {wanted.format(context[key])}")
    return Problem(path, f"found {shown(found)}: {error['msg']}")


def _literal(path: tuple[str | int, ...], found: Any, names: Iterable[str]) -> Problem:
    listed = list(names)
    close = nearest(found, listed) if isinstance(found, str) else ""
    hint = close if close.startswith("did") else ""
    return Problem(path, f"found {shown(found)}, wanted one of {', '.join(listed)}", hint)
