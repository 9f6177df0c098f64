"""The models of a recipe in order, and the names they get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from toolkit.recipe.base import RecipeModel
from toolkit.recipe.kinds import (
    RESERVED_NAMES,
    CheckpointModel,
    FactoryModel,
    MergeModel,
    MoeModel,
    OnnxFile,
    sanitised,
)
from toolkit.recipe.models import DistillModel, EnsembleModel, Model, SoupModel, StackModel
from toolkit.recipe.problems import Location

__all__ = ["resolved_model", "walk"]


def walk(model: Any, path: Location = ("model",)) -> Iterator[tuple[Location, Any]]:
    """Every model with its place in the recipe, parents before members, gates after these.

    Works on models and on the plain data they are validated from, whatever its types.
    """
    yield path, model
    for kind, key in (("ensemble", "members"), ("soup", "members"), ("stack", "stages")):
        members = _get(_get(model, kind), key)
        if isinstance(members, (list, tuple)):
            for i, member in enumerate(members):
                yield from walk(member, (*path, kind, key, i))
    teachers = _get(_get(model, "distill"), "teachers")
    if teachers is not None:
        yield from walk(teachers, (*path, "distill", "teachers"))
    gate = _get(_get(_get(model, "ensemble"), "gate"), "model")
    if gate is not None:
        yield from walk(gate, (*path, "ensemble", "gate", "model"))


def _get(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    return getattr(value, key, None) if isinstance(value, RecipeModel) else None


def resolved_model(model: Model) -> Model:
    """The same tree with every name given and every ensemble's weights written out.

    A derived name that is taken, by an explicit one anywhere or a derived one before it, gets
    the first free suffix ``_2``, ``_3``, …
    """
    models = list(walk(model))
    taken = {found.name for _, found in models if found.name}.union(RESERVED_NAMES)
    names = []
    for path, found in models:
        derived = "gate" if path[-2:] == ("gate", "model") else _derived(found)
        name = found.name or _unique(derived, taken)
        taken.add(name)
        names.append(name)
    return _rebuilt(model, iter(names))


_PLAIN: Mapping[type[RecipeModel], str] = {
    EnsembleModel: "ensemble",
    SoupModel: "soup",
    StackModel: "stack",
    MoeModel: "moe",
    DistillModel: "student",
}


def _derived(model: Model) -> str:
    if isinstance(model, CheckpointModel):
        return sanitised(model.checkpoint.path.resolve().name)
    if isinstance(model, FactoryModel):
        return sanitised(model.factory.rpartition(":")[2])
    for kind, name in _PLAIN.items():
        if isinstance(model, kind):
            return name
    if isinstance(model, MergeModel):
        return sanitised(str(model.merge.get("name") or model.merge["merge_method"]))
    assert isinstance(model, OnnxFile)
    return sanitised(PurePosixPath(model.onnx.text).stem)


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _rebuilt(model: Model, names: Iterator[str]) -> Model:
    update: dict[str, Any] = {"name": next(names)}
    if isinstance(model, EnsembleModel):
        spec = model.ensemble
        count = len(spec.members)
        inner: dict[str, Any] = {
            "members": tuple(_rebuilt(member, names) for member in spec.members)
        }
        if spec.gate is None:
            inner["weights"] = spec.weights or (1 / count,) * count
        else:
            gate = _rebuilt(spec.gate.model, names)
            inner["gate"] = spec.gate.model_copy(update={"model": gate})
        update["ensemble"] = spec.model_copy(update=inner)
    if isinstance(model, SoupModel):
        members = tuple(_rebuilt(member, names) for member in model.soup.members)
        update["soup"] = model.soup.model_copy(update={"members": members})
    if isinstance(model, DistillModel):
        teachers = _rebuilt(model.distill.teachers, names)
        update["distill"] = model.distill.model_copy(update={"teachers": teachers})
    if isinstance(model, StackModel):
        stages = tuple(_rebuilt(stage, names) for stage in model.stack.stages)
        update["stack"] = model.stack.model_copy(update={"stages": stages})
    return model.model_copy(update=update)
