"""Read a recipe from its file, write it back in full, describe it to editors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from toolkit.errors import RecipeError
from toolkit.recipe.base import LoadContext, problems_of
from toolkit.recipe.problems import recipe_error, shown
from toolkit.recipe.recipe import Recipe
from toolkit.recipe.yaml_tree import FLOAT, INT, MAX_BYTES, Node, read_tree

__all__ = ["load_recipe", "parse_recipe", "recipe_schema", "resolved_yaml"]


def load_recipe(
    path: Path,
    *,
    allow_code: bool = False,
    root: Path | None = None,
    check_files: bool = True,
    gate_to_come: bool = False,
) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: The YAML file.
        allow_code: Whether Python code that the recipe names may be run later.
        root: The folder that the recipe's paths are read against and confined to, as the user
            gave it; absolute paths inside it are allowed then. Default: the recipe's folder.
        check_files: Whether the files the recipe names must exist.
        gate_to_come: Whether the weights that are trained need not exist yet: those of the
            outermost ensemble's gate, or of the outermost stack's last stage.

    Raises:
        RecipeError: With every problem at once, each with its place and line.
    """
    context = LoadContext(
        root=path.parent if root is None else root,
        explicit_root=root is not None,
        allow_code=allow_code,
        check_files=check_files,
    )
    text = _read_text(path)
    if gate_to_come:
        context = replace(context, to_come=_gate_weights(text))
    return parse_recipe(text, str(path), context)


def _gate_weights(text: str) -> frozenset[str]:
    """The path of the weights of the outermost gate or last stage, where the text names one."""
    try:
        tree, _ = read_tree(text)
    except RecipeError:  # told when it is parsed
        return frozenset()
    found = None if tree is None else tree.plain()
    model = found.get("model") if isinstance(found, dict) else None
    inside = ("stack", "stages", -1) if "stack" in (model or ()) else ("ensemble", "gate", "model")
    found = model
    for key in (*inside, "weights"):
        if isinstance(found, list) and found and key == -1:
            found = found[-1]
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return frozenset([found]) if isinstance(found, str) else frozenset()


def parse_recipe(text: str, source: str, context: LoadContext) -> Recipe:
    """Validate a recipe's text; ``source`` is what errors call it.

    Raises:
        RecipeError: With every problem at once, each with its place and line.
    """
    try:
        tree, problems = read_tree(text)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error.message}", hint=error.hint) from error
    root = _mapping(tree, source)
    try:
        recipe = Recipe.model_validate(_wrapped(root.plain()), context=context)
    except ValidationError as error:
        # What is tagged or given twice is told once.
        told = {problem.path for problem in problems}
        found = [problem for problem in problems_of(error) if problem.path not in told]
        problems += [problem.at(root.line_of(problem.path)) for problem in found]
        raise recipe_error(source, problems) from error
    if problems:
        raise recipe_error(source, problems)
    return recipe


def _wrapped(document: Any) -> Any:
    """A mergekit config is a recipe whose model is that merge, or that mixture of experts."""
    if not isinstance(document, dict) or "model" in document:
        return document
    if "merge_method" in document:
        return {"model": {"merge": document}}
    return {"model": {"moe": document}} if "experts" in document else document


def _mapping(tree: Node | None, source: str) -> Node:
    start = "a recipe starts with model:, see docs/recipe.md"
    if tree is None or tree.value is None:
        raise RecipeError(f"{source} is empty, wanted a recipe", hint=start)
    if not isinstance(tree.value, dict):
        found = shown(tree.plain())
        raise RecipeError(f"{source}: found {found} at the top, wanted a mapping", hint=start)
    return tree


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise RecipeError(f"{path} is a folder, wanted a recipe file", hint=_recipes_in(path))
    if not path.exists():
        raise RecipeError(f"{path} does not exist", hint=_recipes_in(path.parent))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is over the limit of {MAX_BYTES:,} bytes for a recipe")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{raw[error.start]:02x}",
            hint="a recipe is a YAML file, not a model",
        ) from error


def _recipes_in(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    found = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    if not found:
        return f"{folder} holds no YAML files"
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"{folder} holds {', '.join(found[:10])}{more}"


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe as YAML with every default, name and weight written out.

    Paths stay as the recipe wrote them: read against the same root it loads as an equal recipe.
    """
    data = recipe.model_dump(mode="json")
    return yaml.dump(_without_unset(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _without_unset(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out keys that say nothing; None inside ``kwargs`` is a value and stays."""
    kept: dict[str, Any] = {}
    for key, value in data.items():
        trimmed = value
        if key != "kwargs" and isinstance(value, dict):
            trimmed = _without_unset(value)
        elif key != "kwargs" and isinstance(value, list):
            trimmed = [_without_unset(v) if isinstance(v, dict) else v for v in value]
        if trimmed is not None and trimmed not in ({}, []):
            kept[key] = trimmed
    return kept


def recipe_schema() -> dict[str, Any]:
    """The recipe's JSON Schema (draft 2020-12), for completion and checks in editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
