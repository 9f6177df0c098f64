"""Rules for Triton's own ensembles: models whose tensors are passed on inside the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.package.findings import Level
from toolkit.package.tensor_rules import dtype_name

__all__ = ["ensemble_rules"]

Found = Iterator[tuple[Level, str]]
_Tensors = dict[str, tuple[str, str]]


def ensemble_rules(config: Any, models: Mapping[str, Any]) -> Found:
    """That every step names a model and its tensors, and every tensor comes from somewhere.

    Args:
        config: The ensemble's.
        models: Configurations that load, by name.
    """
    steps = config.ensemble_scheduling.step
    if not steps:
        yield "refused", "it is an ensemble without steps"
        return
    made: _Tensors = {t.name: (dtype_name(t), f"input {t.name!r}") for t in config.input}
    used: list[tuple[str, str, str]] = []
    for step in steps:
        if step.model_name not in models:
            yield "refused", f"a step names {step.model_name!r}, which is missing or does not load"
            continue
        member = models[step.model_name]
        yield from _step(step, member, made, used)
        if member.max_batch_size < config.max_batch_size:
            yield (
                "refused",
                (
                    f"max_batch_size is {config.max_batch_size}, and {step.model_name!r} takes"
                    f" {member.max_batch_size}"
                ),
            )
    used += [(t.name, dtype_name(t), f"output {t.name!r}") for t in config.output]
    for name, dtype, what in used:
        if name not in made:
            yield "refused", f"{what} takes tensor {name!r}, which no step gives"
        elif made[name][0] != dtype:
            yield "refused", f"{what} is {dtype}, its tensor {name!r} {made[name][0]}"
    for name in made.keys() - {name for name, _, _ in used}:
        yield "refused", f"tensor {name!r} is used by no step and is no output"


def _step(step: Any, member: Any, made: _Tensors, used: list[tuple[str, str, str]]) -> Found:
    name = step.model_name
    inputs = {tensor.name: tensor for tensor in member.input}
    outputs = {tensor.name: tensor for tensor in member.output}
    for entry in step.input_map:
        if entry.key not in inputs:
            yield "refused", f"a step maps {entry.key!r}, which is no input of {name!r}"
        else:
            used.append((entry.value, dtype_name(inputs[entry.key]), f"{entry.key!r} of {name!r}"))
    mapped = {entry.key for entry in step.input_map}
    for tensor in member.input:
        if tensor.name not in mapped and not tensor.optional:
            yield "refused", f"a step does not map input {tensor.name!r} of {name!r}"
    for entry in step.output_map:
        if entry.key not in outputs:
            yield "refused", f"a step maps {entry.key!r}, which is no output of {name!r}"
        elif entry.value in made:
            yield "refused", f"tensor {entry.value!r} is given twice"
        else:
            made[entry.value] = (dtype_name(outputs[entry.key]), name)
