"""The toolkit's main job, end to end: train three models, fuse them, export, prove, measure.

    python samples/digits_demo.py       # what `make demo` runs

Trains three digit classifiers, runs ``toolkit export`` for their linear and their log-linear
ensemble, and prints one table. Exits with 1 when what was shipped does not hold: a prediction of
the shipped graph that differs from PyTorch's, a failed parity proof, or an ensemble that does not
beat its best member on the held-out digits.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import digits_ensembles
import numpy as np
import torch
from digits_measure import (
    export_member,
    latency,
    load_member,
    one_by_one,
    open_session,
    predict,
    size,
)
from digits_train import MEMBERS, WEIGHTS
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
MEMBER_ONNX = ROOT / "build" / "digits_members"
BATCH = 16
CONSOLE = Console()


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of the members: its recipe, its bundle and the formula it must follow."""

    title: str
    recipe: str
    bundle: str
    combine: Callable[[Sequence[torch.Tensor]], torch.Tensor]

    @property
    def plan(self) -> Path:
        """The engine file."""
        return ROOT / self.bundle / "model.plan"

    @property
    def proven(self) -> bool:
        """Whether the bundle's parity proof passed."""
        manifest = json.loads((ROOT / self.bundle / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest["verdict"] == "passed")


ENSEMBLES = (
    Ensemble(
        "linear ensemble",
        "samples/recipes/digits_ensemble.yaml",
        "build/digits",
        digits_ensembles.linear,
    ),
    Ensemble(
        "log-linear ensemble",
        "samples/recipes/digits_ensemble_log_linear.yaml",
        "build/digits_log_linear",
        digits_ensembles.log_linear,
    ),
)


@dataclass(frozen=True)
class Figures:
    """Everything the table shows; predictions are digits, [n], keyed by member or title."""

    label: np.ndarray
    pytorch: dict[str, np.ndarray]
    shipped: dict[str, np.ndarray]
    times: dict[str, list[float]]
    sizes: dict[str, int]

    def right(self, predicted: np.ndarray) -> int:
        """How many held-out digits a prediction gets right."""
        return int((predicted == self.label).sum())

    @property
    def best_member(self) -> int:
        """How many the best single member gets right."""
        return max(self.right(self.pytorch[name]) for name in MEMBERS)


def run(*command: str) -> None:
    """Show a command line and run it in the project's folder; its failure is ours."""
    CONSOLE.print(f"\n[bold]$ {' '.join(command)}[/bold]", highlight=False, soft_wrap=True)
    beside = shutil.which(command[0], path=str(Path(sys.executable).parent))
    ended = subprocess.run([beside or command[0], *command[1:]], cwd=ROOT, check=False)
    if ended.returncode != 0:
        sys.exit(ended.returncode)


def measure() -> Figures:
    """Run members and ensembles, in PyTorch and as shipped, on the held-out digits."""
    held_out = np.load(WEIGHTS / "heldout.npz")
    image = held_out["image"]
    models = {name: load_member(name, WEIGHTS) for name in MEMBERS}
    paths = {name: export_member(model, MEMBER_ONNX / name) for name, model in models.items()}
    paths |= {each.title: ROOT / each.bundle / "model.onnx" for each in ENSEMBLES}
    sessions = {name: open_session(path) for name, path in paths.items()}
    return Figures(
        label=held_out["label"],
        pytorch=_in_pytorch(models, torch.from_numpy(image)),
        shipped={each.title: predict(sessions[each.title], image, BATCH) for each in ENSEMBLES},
        times=latency(sessions, image[:BATCH]),
        sizes={name: size(path) for name, path in paths.items()},
    )


@torch.no_grad()
def _in_pytorch(models: dict[str, nn.Module], image: torch.Tensor) -> dict[str, np.ndarray]:
    logits = {name: model(image) for name, model in models.items()}
    members = list(logits.values())
    logits |= {each.title: each.combine(members) for each in ENSEMBLES}
    return {name: scores.argmax(dim=-1).numpy() for name, scores in logits.items()}


def table(figures: Figures) -> Table:
    """Everything in one table: members, then each ensemble in PyTorch, ONNX and as a plan."""
    shown = Table(
        title=f"{len(figures.label):,} held-out digits; ms: median latency of a batch of {BATCH}",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),  # fits 80 columns, which is what a terminal that is none counts as
    )
    for column in ("model", "runs in"):
        shown.add_column(column, no_wrap=True)
    for column in ("accuracy", "right", "parity", "size", "ms"):
        shown.add_column(column, justify="right", no_wrap=True)
    for cells in _member_rows(figures):
        shown.add_row(*cells)
    for each in ENSEMBLES:
        shown.add_section()
        for cells in _ensemble_rows(each, figures):
            shown.add_row(*cells)
    return shown


def _member_rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name in MEMBERS:
        right = _scores(figures, figures.pytorch[name])
        yield name, "PyTorch", *right, "", *_cost(figures, name)
    together = sum(figures.sizes[name] for name in MEMBERS)
    milliseconds = f"{one_by_one(figures.times):.3f}"
    yield "members one by one", "ONNX Runtime", "", "", "", _kilobytes(together), milliseconds


def _ensemble_rows(each: Ensemble, figures: Figures) -> Iterator[tuple[str, ...]]:
    yield each.title, "PyTorch float64", *_scores(figures, figures.pytorch[each.title])
    verdict = "passed" if each.proven else "[red]FAILED[/red]"
    right = _scores(figures, figures.shipped[each.title])
    yield "  model.onnx", "ONNX Runtime", *right, verdict, *_cost(figures, each.title)
    yield "  model.plan", "needs a GPU", "", "", "", _kilobytes(size(each.plan))


def _scores(figures: Figures, predicted: np.ndarray) -> tuple[str, str]:
    right = figures.right(predicted)
    return f"{right / len(figures.label):.2%}", str(right)


def _cost(figures: Figures, name: str) -> tuple[str, str]:
    return _kilobytes(figures.sizes[name]), f"{statistics.median(figures.times[name]):.3f}"


def _kilobytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB"


def broken_promises(figures: Figures) -> Iterator[str]:
    """What does not hold, one sentence each."""
    for each in ENSEMBLES:
        differ = int((figures.shipped[each.title] != figures.pytorch[each.title]).sum())
        right = figures.right(figures.shipped[each.title])
        if differ:
            yield f"the {each.title} predicts {differ} digits differently in ONNX and in PyTorch"
        if right <= figures.best_member:
            best = figures.best_member
            yield f"the {each.title} gets {right} digits right, its best member {best}"
        if not each.proven:
            yield f"the {each.title} failed its parity proof: {each.bundle}/report.html"


def main() -> None:
    started = time.monotonic()
    run("python", "samples/digits_train.py")
    for each in ENSEMBLES:
        run("toolkit", "export", each.recipe, "-o", each.bundle, "--allow-code")
    figures = measure()
    CONSOLE.print("", table(figures), "", sep="\n")
    broken = list(broken_promises(figures))
    for promise in broken:
        CONSOLE.print(f"[red]does not hold:[/red] {promise}", soft_wrap=True)
    if broken:
        sys.exit(1)
    closing = CLOSING.format(count=len(figures.label), seconds=time.monotonic() - started)
    CONSOLE.print(closing, highlight=False, soft_wrap=True)


CLOSING = """\
Both ensembles beat their best member, and each model.onnx predicts what PyTorch predicts
on all {count:,} digits. Sizes are of ONNX files; times are of ONNX Runtime on one CPU thread,
members and ensembles taken in turns.
Each model.plan is a TensorRT-RTX engine, built here without a GPU; running it needs one.
Proofs with plots: build/digits/report.html and build/digits_log_linear/report.html.
The whole demo took {seconds:.0f} s."""


if __name__ == "__main__":
    main()
