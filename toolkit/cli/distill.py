"""``toolkit distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from toolkit.pipeline import Distillation, DistilReport

__all__ = ["distill_command"]


def distill_command(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe whose model is a distill.", metavar="RECIPE")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Argument(help="The checkpoint folder to write.", metavar="OUT", show_default=False),
    ] = None,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Write what the teachers say here once, and train without them in memory.",
            metavar="DIR",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
    logs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write curves for TensorBoard here.", metavar="DIR"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan and train nothing.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder the recipe's paths start from [default: the recipe's own]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Teach a student what other models say, and write it as a checkpoint.

    Checkpoints of the training lie in OUT.work until OUT is written. Under accelerate launch or
    torchrun (-m toolkit distill …) several processes share every batch.
    """
    if out is None and not dry_run:
        raise typer.BadParameter("wanted OUT, or --dry-run")
    from toolkit.cli.terminal import progress, show
    from toolkit.pipeline import distil

    what = _planned(recipe, root, allow_code=allow_code)
    if out is None or dry_run:
        show(_plan(what), as_json=json, tables=_plan_tables(what))
        return
    work = out.with_name(out.name + ".work")
    with progress() as report:
        made = distil(what, out, work=work, cache=cache, resume=resume, logs=logs, progress=report)
    if made is not None:
        show(made.to_json(), as_json=json, tables=_tables(made))


def _planned(recipe: Path, root: Path | None, *, allow_code: bool) -> Distillation:
    """What a recipe says, checked before anything is trained.

    Raises:
        RecipeError: If it is no recipe, or not of a distillation.
    """
    from toolkit.errors import RecipeError
    from toolkit.recipe import DistillModel, load_recipe

    loaded = load_recipe(recipe, allow_code=allow_code, root=root)
    if not isinstance(loaded.model, DistillModel):
        raise RecipeError(
            f"{recipe}: the model is not a distill",
            hint="model: {distill: {student: …, teachers: …, data: …}}",
        )
    from toolkit.pipeline import plan_distillation

    return plan_distillation(loaded.model, loaded, root or recipe.parent, loaded.input_specs())


def _plan(what: Distillation) -> dict[str, Any]:
    from toolkit.pipeline.distil_report import teacher_sizes

    options = what.options
    total, per_pass = what.steps
    return {
        "task": what.student.task,
        "student": {"parameters": what.parameters, "inputs": [s.name for s in what.student.inputs]},
        "teachers": teacher_sizes(what),
        "rows": {"train": len(what.examples.train), "held_out": len(what.examples.held)},
        "steps": total,
        "steps_in_a_pass": per_pass,
        "batch": options.batch,
        "key": what.key,
    }


def _plan_tables(what: Distillation) -> list[Any]:
    from toolkit.cli.terminal import pairs

    plan = _plan(what)
    teachers = ", ".join(f"{name} ({size:,})" for name, size in plan["teachers"].items())
    facts = {
        "task": plan["task"],
        "student": f"{plan['student']['parameters']:,} parameters",
        "teachers": teachers or "none with a file of weights",
        "rows": f"{plan['rows']['train']:,} to learn from, {plan['rows']['held_out']:,} held out",
        "steps": f"{plan['steps']:,} of {plan['batch']} rows, {plan['steps_in_a_pass']:,} a pass",
    }
    return [pairs("Distillation, not run", facts)]


def _tables(made: DistilReport) -> list[Any]:
    from toolkit.cli.terminal import table

    training = made.training
    rows = []
    for one in training.judgements:
        nll = "" if one.nll is None else f"{one.nll:.4f}"
        accuracy = "" if one.accuracy is None else f"{one.accuracy:.2%}"
        mark = "kept" if one.step == training.best else ""
        rows.append((one.step, f"{one.loss:.4f}", nll, accuracy, mark))
    lines: list[Any] = []
    if rows:
        columns = ["step", "loss", "nll of labels", "right", ""]
        lines.append(table("Held-out rows", columns, rows))
    if made.effect is not None:
        lines.append(f"Kept of the teachers: {made.effect}.")
    teachers = sum(made.teachers.values())
    size = f"{made.parameters:,} parameters"
    if teachers:
        size += f", {made.parameters / teachers:.1%} of its teachers'"
    lines.append(
        f"{made.out}: {size}; {training.steps:,} steps in {training.seconds:.1f} s, "
        f"{training.units:,.0f} {training.unit}/s on {training.processes} "
        f"process{'es' if training.processes > 1 else ''}."
    )
    return lines
