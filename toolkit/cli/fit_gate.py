"""``toolkit fit-gate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from toolkit.pipeline import FitOptions, FitReport
    from toolkit.recipe import Recipe

__all__ = ["fit_gate_command"]


def fit_gate_command(
    recipe: Annotated[
        Path,
        typer.Argument(help="A recipe whose model is an ensemble or a stack.", metavar="RECIPE"),
    ],
    data: Annotated[
        Path,
        typer.Option(help="Held-out data: .npz or .safetensors with labels, or .txt or .jsonl."),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(
            "-o",
            "--out",
            help="Where the trained weights go [default: the file the recipe names]; with "
            "--constant, a YAML file with the weights.",
        ),
    ] = None,
    constant: Annotated[
        bool, typer.Option("--constant", help="Fit constant weights and no gate.")
    ] = False,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that keeps the members' outputs for the next time."),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share of the examples that judge and are not fitted.")
    ] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the data.")] = 200,
    rate: Annotated[float, typer.Option(min=1e-8, help="Learning rate of Adam.")] = 1e-2,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 64,
    window: Annotated[int, typer.Option(min=2, help="Most tokens of a text at a time.")] = 256,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that factories name.")
    ] = False,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder the recipe's paths start from [default: the recipe's own]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit weights, a gate, or a stack's last stage to held-out data; members stay as they are.

    The table shows every member, uniform weights, the best constant weights and the gate, on the
    examples that were fitted and on those that were kept for validation. Of a stack it shows the
    stages that give a distribution, their uniform mixture, and the last stage: the combiner.
    """
    from toolkit.recipe import load_recipe

    # The file that training is to write need not be there.
    loaded = load_recipe(recipe, allow_code=allow_code, root=root, gate_to_come=True)

    from toolkit.fitting import TrainingOptions
    from toolkit.pipeline import FitOptions

    training = TrainingOptions(epochs=epochs, rate=rate)
    options = FitOptions(constant, validation, batch, window, cache, training)
    _fit(loaded, root or recipe.parent, data, out, options, json=json)


def _fit(
    recipe: Recipe, folder: Path, data: Path, out: Path | None, options: FitOptions, *, json: bool
) -> None:
    from toolkit.cli.terminal import progress, show
    from toolkit.errors import RecipeError
    from toolkit.pipeline import fit_recipe

    gate_file = None if options.constant else out
    with progress() as report:
        found = fit_recipe(recipe, folder, data, gate_file, options, report)
    if options.constant and out is not None:
        try:
            out.write_text(_weights_line(found) + "\n", encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"cannot write {out}: {error.strerror}") from error
    show(found.to_json(), as_json=json, tables=_tables(found))


def _weights_line(found: FitReport) -> str:
    from toolkit.recipe.weights import listed

    exact = sum(found.weights)
    linear = abs(exact - 1) < 1e-9
    text = listed(found.weights) if linear else str([round(w, 6) for w in found.weights])
    return f"weights: {text}"


def _tables(found: FitReport) -> list[Any]:
    from toolkit.cli.terminal import table

    last = "perplexity" if found.text else "accuracy"
    rows = []
    for row in found.rows:
        held = row.validation
        figure = held.perplexity if found.text else held.accuracy
        shown = "" if figure is None else f"{figure:.4g}"
        rows.append((row.name, f"{row.fitted.nll:.4f}", f"{held.nll:.4f}", shown))
    counts = found.rows[0]
    title = (
        f"Negative log likelihood in nats, {counts.fitted.count} labels fitted, "
        f"{counts.validation.count} for validation"
    )
    columns = ["combination", "fitted", "validation", f"{last}, validation"]
    lines: list[Any] = [table(title, columns, rows, right=3)]
    if found.fit is None:
        return [*lines, _weights_line(found).replace("[", "\\[")]
    passes = f"{found.fit.epoch} of {found.fit.epochs} passes"
    lines.append(
        f"{found.out}: the {found.trained} after {passes}, the best on the validation split"
    )
    if found.worse and found.rival is not None and not found.weights:
        lines.append(
            "[yellow]the combiner is WORSE than "
            f"{found.rival.name} on the validation split[/yellow]: use that, or more data"
        )
    elif found.worse:
        lines.append(
            "[yellow]the gate is WORSE than constant weights on the validation split[/yellow]: use "
            + _weights_line(found).replace("[", "\\[")
        )
    return lines
