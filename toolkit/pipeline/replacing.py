"""The recipe of a bundle with other weights: a whole one, or one model's checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from toolkit.bundle import Bundle
from toolkit.errors import RefitError
from toolkit.recipe import (
    CheckpointModel,
    EnsembleModel,
    FactoryModel,
    LoadContext,
    Model,
    OnnxFile,
    Recipe,
    SoupModel,
    StackModel,
    load_recipe,
    parse_recipe,
    resolved_yaml,
)

__all__ = ["is_recipe", "with_checkpoint", "with_recipe"]

_OWN = {"model", "parity", "seed"}


def is_recipe(path: Path) -> bool:
    """Whether a path is a recipe and no checkpoint."""
    return path.suffix in {".yaml", ".yml"}


def with_recipe(old: Recipe, path: Path, root: Path, *, allow_code: bool) -> Recipe:
    """The bundle's recipe with the model of another.

    Raises:
        RefitError: If the other one says something else besides.
        RecipeError: If it is none.
    """
    new = load_recipe(path, allow_code=allow_code, root=root)
    for key in sorted(new.model_fields_set - _OWN):
        for name, found, wanted in _said(key, getattr(new, key), getattr(old, key)):
            if found != wanted and (name, found) != ("export.experts", "auto"):
                raise RefitError(
                    f"{path.name}: {name} is {_shown(found)}, wanted {_shown(wanted)} as in the "
                    "bundle",
                    hint="only weights can be refitted; leave the key out, or export",
                )
    return old.model_copy(update={"model": new.model})


def _said(key: str, new: Any, old: Any) -> list[tuple[str, Any, Any]]:
    """What a recipe says for itself, with what the bundle has there."""
    if hasattr(new, "model_fields_set"):
        return [
            (f"{key}.{name}", getattr(new, name), getattr(old, name))
            for name in sorted(new.model_fields_set)
        ]
    if isinstance(new, dict):
        return [(f"{key}.{name}", value, old.get(name)) for name, value in new.items()]
    return [(key, new, old)]


def _shown(value: object) -> str:
    return repr(value)[:80]


def with_checkpoint(  # noqa: PLR0913  (each is a different thing, and all are needed)
    bundle: Bundle, old: Recipe, path: Path, root: Path, member: str | None, *, allow_code: bool
) -> Recipe:
    """The bundle's recipe with a checkpoint in place of one model.

    Args:
        bundle: The bundle.
        old: Its recipe.
        path: A model folder, or for a factory a safetensors file.
        root: What the recipe's paths are read against.
        member: The model's name; needed where there are several.
        allow_code: Whether factories may run.

    Raises:
        RefitError: If it cannot stand for that model, or lies outside ``root``.
        RecipeError: If the path is no checkpoint.
    """
    place, model = _find(old, member)
    key = _key(model, path)
    home, real = os.path.realpath(root), os.path.realpath(path)
    text = os.path.relpath(real, home)
    if text.startswith(".."):
        raise RefitError(
            f"{path} lies outside {root}, wanted it inside: the bundle's recipe names its models "
            "from there",
            hint=f"copy it into {root}",
        )
    data = yaml.safe_load(resolved_yaml(old))
    target = data
    for step in place[:-1]:
        target = target[step]
    kept = dict(target[place[-1]])
    said = {name: kept[name] for name in ("task", "cache", "rename") if name in kept}
    if isinstance(model, FactoryModel):
        said = kept
    elif isinstance(model, SoupModel) and isinstance(model.soup.members[0], FactoryModel):
        said = {**kept["soup"]["members"][0], "rename": kept.get("rename", {})}
    target[place[-1]] = {**said, "name": model.name, key: text}
    context = LoadContext(root=root, explicit_root=True, allow_code=allow_code, check_files=True)
    return parse_recipe(yaml.safe_dump(data), str(bundle.folder / "recipe.yaml"), context)


def _find(recipe: Recipe, member: str | None) -> tuple[list[Any], Model]:
    """Where in the recipe's data the model is, and the model.

    Raises:
        RefitError: If there is none of that name, or several and no name.
    """
    found = [(path, m) for path, m in _walk(recipe.model, ["model"])]
    if member is None and len(found) == 1:
        return found[0]
    for path, model in found:
        if model.name == member:
            return path, model
    names = ", ".join(model.name for _, model in found)
    if member is None:
        raise RefitError(
            f"the bundle is made of {len(found)} models, and it is not said which one to replace",
            hint=f"--member, one of {names}; or --with a recipe",
        )
    raise RefitError(f"the bundle has no model {member!r}", hint=f"it has {names}")


def _walk(model: Model, path: list[Any]) -> list[tuple[list[Any], Model]]:
    """Every model that is neither an ensemble nor a stack, with its place."""
    if isinstance(model, EnsembleModel):
        spec = model.ensemble
        parts = [(["ensemble", "members", i], m) for i, m in enumerate(spec.members)]
        if spec.gate is not None:
            parts.append((["ensemble", "gate", "model"], spec.gate.model))
    elif isinstance(model, StackModel):
        parts = [(["stack", "stages", i], m) for i, m in enumerate(model.stack.stages)]
    else:
        return [(path, model)]
    return [found for inner, part in parts for found in _walk(part, [*path, *inner])]


def _key(model: Model, path: Path) -> str:
    """What a recipe calls such a checkpoint.

    Raises:
        RefitError: If this model takes none.
    """
    if isinstance(model, OnnxFile):
        raise RefitError(
            f"{model.name!r} is an ONNX file, which has no PyTorch weights to replace",
            hint="toolkit export builds a recipe with another file",
        )
    factory = isinstance(model, FactoryModel) or (
        isinstance(model, SoupModel) and not isinstance(model.soup.members[0], CheckpointModel)
    )
    if factory == path.is_dir() or not path.exists():
        wanted = "a safetensors file" if factory else "a model folder"
        found = "nothing" if not path.exists() else "a folder" if path.is_dir() else "a file"
        raise RefitError(f"{path}: found {found}, wanted {wanted} for {model.name!r}")
    return "weights" if factory else "checkpoint"
