"""Inputs, outputs and shapes of a tree of models, joined by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from toolkit.artifacts import OnnxModel, Shapes, TensorSpec
from toolkit.errors import RecipeError
from toolkit.recipe import check_shapes
from toolkit.sources import HuggingFaceSource, Source

__all__ = ["join_inputs", "resolve_output", "resolve_scores", "resolve_shapes"]


def join_inputs(
    members: Iterable[tuple[str, Sequence[TensorSpec], Mapping[str, str]]],
    declared: Sequence[TensorSpec] = (),
) -> tuple[TensorSpec, ...]:
    """The union of members' inputs after renaming; equal names are one input.

    Value ranges are intersected, so that what is fed is valid for every member.

    Args:
        members: Name, inputs, and rename map (member's name → shared name) of each.
        declared: What the recipe says; first in order, and binding.

    Raises:
        RecipeError: If members (or a member and the recipe) give one name two dtypes or shapes.
    """
    joined: dict[str, TensorSpec] = {}
    origin: dict[str, str] = {}
    wanted = {spec.name: spec for spec in declared}
    for member, inputs, rename in members:
        _check_rename(member, inputs, rename)
        for own in inputs:
            spec = replace(own, name=rename.get(own.name, own.name))
            known = joined.get(spec.name) or wanted.get(spec.name)
            who = origin.get(spec.name, "the recipe")
            joined[spec.name] = _meet(known, spec, who, member) if known else spec
            origin.setdefault(spec.name, f"member {member!r}")
    unused = [name for name in wanted if name not in joined]
    if unused:
        raise RecipeError(
            f"input {unused[0]!r} is declared, but no model takes it",
            hint=f"models take {', '.join(joined)}; join names with a member's rename: {{…}}",
        )
    order = [*wanted, *(name for name in joined if name not in wanted)]
    return tuple(joined[name] for name in order)


def _check_rename(member: str, inputs: Sequence[TensorSpec], rename: Mapping[str, str]) -> None:
    names = [spec.name for spec in inputs]
    for key in rename:
        if key not in names:
            raise RecipeError(
                f"member {member!r} renames {key!r}, which is not one of its inputs",
                hint="its inputs are " + ", ".join(names),
            )


def _meet(known: TensorSpec, new: TensorSpec, who: str, member: str) -> TensorSpec:
    if (known.dtype, known.shape) != (new.dtype, new.shape):
        raise RecipeError(
            f"input {new.name!r} is {known} for {who} and {new} for member {member!r}",
            hint="give one of them another name with rename: {its name: shared name}",
        )
    lows = [value for value in (known.low, new.low) if value is not None]
    highs = [value for value in (known.high, new.high) if value is not None]
    role = "mask" if "mask" in {known.role, new.role} else "values"
    return replace(
        known, low=max(lows, default=None), high=min(highs, default=None),
        role="mask" if role == "mask" else "values",
    )  # fmt: skip


def resolve_output(
    ensemble: str, members: Sequence[tuple[str, tuple[str, ...]]], asked: str | None
) -> str:
    """The output every member has: the one asked for, else ``logits``, else the only common one.

    Raises:
        RecipeError: If there is no such output; the ones that exist are listed.
    """
    common = [name for name in members[0][1] if all(name in outputs for _, outputs in members)]
    listed = "; ".join(f"{name} has {', '.join(outputs)}" for name, outputs in members)
    if asked is not None:
        lacking = [name for name, outputs in members if asked not in outputs]
        if lacking:
            raise RecipeError(
                f"ensemble {ensemble!r} combines output {asked!r}, which member {lacking[0]!r} "
                "does not have",
                hint=listed,
            )
        return asked
    if "logits" in common:
        return "logits"
    if len(common) != 1:
        found = ", ".join(common) or "no output"
        raise RecipeError(
            f"ensemble {ensemble!r} does not say which output to combine; members share {found}",
            hint=f"output: <name>; {listed}",
        )
    return common[0]


def resolve_scores(gate: str, outputs: Sequence[str], asked: str | None) -> str:
    """The gate's output with the scores: the one asked for, a usual name, or the only one.

    Raises:
        RecipeError: If there is no such output; the ones that exist are listed.
    """
    usual = [name for name in ("logits", "weights", "scores") if name in outputs]
    found = [asked] if asked is not None else usual or list(outputs)
    if found[0] not in outputs:
        raise RecipeError(
            f"the gate {gate!r} has no output {asked!r}", hint="it has " + ", ".join(outputs)
        )
    if asked is None and not usual and len(found) > 1:
        raise RecipeError(
            f"it is not said which output of the gate {gate!r} holds the scores",
            hint="gate: {output: <name>}; it has " + ", ".join(outputs),
        )
    return found[0]


def resolve_shapes(
    inputs: Sequence[TensorSpec], given: Shapes, sources: Sequence[Source | OnnxModel]
) -> Shapes:
    """The recipe's ranges, completed by what Hugging Face models allow.

    Those that only the other part of encoder-decoder models has are left out: one recipe says both.

    Raises:
        RecipeError: If a dimension has no range, a range has no dimension, or a range reaches past
            what a model can take.
    """
    encoders = [source for source in sources if isinstance(source, HuggingFaceSource)]
    used = {symbol for spec in inputs for symbol in spec.symbols}
    other = {dim for source in encoders for dim in source.other_dimensions}
    shapes = {name: span for name, span in given.items() if name in used or name not in other}
    for source in encoders:
        for name, span in source.default_shapes().items():
            known = shapes.get(name)
            if name not in given and (known is None or span.max < known.max):
                shapes[name] = span
    problems = check_shapes(inputs, shapes)
    if problems:
        first = problems[0]
        raise RecipeError(f"shapes: {first.message}", hint=first.hint)
    for source in encoders:
        source.check_shapes(shapes)
    return {name: span for name, span in shapes.items() if name in used}
