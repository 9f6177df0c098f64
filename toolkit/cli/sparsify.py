"""``toolkit sparsify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.pipeline import SparseReport

__all__ = ["sparsify_command"]


_Method = Annotated[
    Optional[str],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
    typer.Option(
        help="magnitude, wanda or second-order [default: second-order with --calibration, "
        "otherwise magnitude].",
        show_default=False,
    ),
]
_Calibration = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Real inputs: arrays in .npz, texts in .jsonl.", metavar="FILE"),
]
_Evaluate = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Inputs to judge by before and after: .jsonl for perplexity, .npz with 'label' "
        "for accuracy.",
        metavar="FILE",
    ),
]
_Layers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Pattern of tensors to prune; may be repeated [default: *]."),
]
_Skip = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Pattern of tensors to leave [default: embeddings, heads, routers]."),
]


def sparsify_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A model folder or a .safetensors file.", metavar="CHECKPOINT")
    ],
    out: Annotated[Path, typer.Argument(help="The folder or file to write.", metavar="OUT")],
    pattern: Annotated[
        str, typer.Option(help="N:M, at most N of M neighbours are kept.", metavar="N:M")
    ] = "2:4",
    method: _Method = None,
    calibration: _Calibration = None,
    evaluate: _Evaluate = None,
    layers: _Layers = None,
    skip: _Skip = None,
    factory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For a file: the module:callable that its weights are of."),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that --factory names.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prune a checkpoint to N of M weights along the axis that products sum over.

    2:4 is what sparse tensor cores take. toolkit distill with training: {keep_zeros: true}
    teaches the result what the dense model says; toolkit inspect --sparsity checks it.
    """
    from toolkit.cli.terminal import progress, show
    from toolkit.errors import RecipeError
    from toolkit.pipeline import SKIPPED, SparseOptions, SparseSource, sparsify
    from toolkit.sparse import Pattern

    if factory is not None and not allow_code:
        raise RecipeError("--factory runs Python code", hint="--allow-code, if you trust it")
    chosen = method or ("second-order" if calibration else "magnitude")
    if chosen not in {"magnitude", "wanda", "second-order"}:
        raise RecipeError(f"--method is {chosen!r}", hint="magnitude, wanda or second-order")
    options = SparseOptions(
        pattern=Pattern.parse(pattern),
        method=chosen,  # type: ignore[arg-type]
        calibration=calibration,
        evaluate=evaluate,
        layers=tuple(layers or ("*",)),
        skip=tuple(skip) if skip is not None else SKIPPED,
    )
    what = SparseSource(checkpoint, factory, checkpoint.parent)
    with progress() as report:
        made = sparsify(what, out, options, report)
    show(made.to_json(), as_json=json, tables=_tables(made, out))


def _tables(made: SparseReport, out: Path) -> list[Table | str]:
    from rich.markup import escape

    from toolkit.cli.terminal import table

    worst = sorted(made.tensors.items(), key=lambda pair: -pair[1])
    kind = "weights" if made.method == "magnitude" else "output"
    rows = [(name, f"{error:.3g}") for name, error in worst[:12]]
    title = f"{len(worst)} tensors to {made.pattern} by {made.method}, the most changed first"
    lines: list[Table | str] = [table(title, ["tensor", f"error of its {kind}"], rows, right=1)]
    if made.left:
        name, why = next(iter(made.left.items()))
        lines.append(escape(f"left dense: {len(made.left)}, such as {name}: {why}"))
    found = made.quality
    if found is not None:
        lines.append(
            f"{found.metric}: {found.before:.6g} dense, {found.after:.6g} sparse; "
            f"{found.agreement:.2%} of choices agree"
        )
    lines.append(f"wrote {escape(str(out))}")
    return lines
