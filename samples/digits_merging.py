"""Merging at work on real digits: soups of fine-tunes, and task arithmetic.

    python samples/digits_merging.py            # trains, merges, prints two tables

**Soups.** One base is fine-tuned seven times with different seeds, learning rates and noise on the
images. 300 digits choose the greedy soup, 997 others measure members, both soups and the
members' ensemble. A soup costs as much as one member at run time, the ensemble seven times that.

**Task arithmetic.** The same base learns two more tasks, each by itself: digits upside down, and
digits in a mirror. ``samples/recipes/merge/`` has the configs that put both into one model; they
are mergekit's grammar and work with ``toolkit merge`` as they are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from digits_train import BATCH, Digits, digits_models, split
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import nn

from toolkit.merge import MergeOptions, merge
from toolkit.merge.evaluators import Accuracy
from toolkit.merge.soup import SoupMember, SoupOptions, SoupReport, make_soup

RECIPES = Path(__file__).resolve().parent / "recipes" / "merge"
SELECTION = 300
# (learning rate, epochs, standard deviation of the noise on images)
FINE_TUNES = (
    (1e-3, 20, 0.0), (3e-3, 20, 0.0), (3e-3, 20, 0.1), (3e-3, 20, 0.2), (5e-3, 20, 0.2),
    (1e-3, 40, 0.1), (2e-3, 30, 0.1),
)  # fmt: skip
Change = Callable[[torch.Tensor], torch.Tensor]
TASKS: dict[str, Change] = {
    "plain": lambda image: image,
    "upside_down": lambda image: image.flip(-2),
    "mirrored": lambda image: image.flip(-1),
}
CONFIGS = ("task_arithmetic", "ties", "dare_ties", "forget")


@dataclass(frozen=True)
class Data:
    """Digits to train on, to choose by, and to measure with."""

    train: Digits
    selection: Digits
    test: Digits


def data(seed: int) -> Data:
    """Three parts of the digits that have none in common."""
    seen, held = split(seed)
    parts = [Digits(held.image[s], held.label[s])
             for s in (slice(SELECTION), slice(SELECTION, None))]  # fmt: skip
    return Data(seen, *parts)


class Keyword(nn.Module):
    """The calling convention of the toolkit's modules: inputs by keyword, a tuple out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model(image),)


def train(  # noqa: PLR0913
    digits: Digits, seed: int, rate: float, epochs: int, *,
    start: nn.Module | None = None, change: Change = TASKS["plain"], noise: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Train from scratch, or go on from ``start``, on digits that are changed first."""
    torch.manual_seed(seed)
    model = digits_models.attention()
    if start is not None:
        model.load_state_dict(start.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.label)).split(BATCH):
            image = change(digits.image[batch])
            image = image + noise * torch.randn_like(image)
            loss = nn.functional.cross_entropy(model(image), digits.label[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits, change: Change = TASKS["plain"]) -> float:
    return digits.accuracy(model(change(digits.image)))


def loaded(path: Path) -> nn.Module:
    model = digits_models.attention()
    model.load_state_dict(load_file(path))
    return model.eval()


def soups(found: Data, base: nn.Module, folder: Path) -> Iterator[tuple[str, str, float]]:
    """Rows: what, how it was made, its accuracy on the test digits."""
    members = {}
    for n, (rate, epochs, noise) in enumerate(FINE_TUNES):
        model = train(found.train, 100 + n, rate, epochs, start=base, noise=noise)
        members[f"fine-tune {n}"] = model
        save_file(model.state_dict(), folder / f"fine-tune-{n}.safetensors")
        told = f"rate {rate:g}, {epochs} epochs, noise {noise:g}"
        yield f"fine-tune {n}", told, accuracy(model, found.test)
    for kind in ("uniform", "greedy"):
        report = soup(kind, found.selection, folder, len(members))
        made = loaded(report.out / "model.safetensors")
        told = f"{len(report.kept)} of {len(members)}: " + ", ".join(n[-1] for n in report.kept)
        yield f"{kind} soup", told, accuracy(made, found.test)
    with torch.no_grad():
        mean = torch.stack([m(found.test.image).softmax(-1) for m in members.values()]).mean(0)
    yield (
        "ensemble",
        f"all {len(members)}, at {len(members)} times the cost",
        found.test.accuracy(mean),
    )


def soup(kind: str, selection: Digits, folder: Path, count: int) -> SoupReport:
    """Make a soup of the fine-tunes in a folder, chosen on the selection digits."""
    evaluator = Accuracy({"image": selection.image.numpy(), "label": selection.label.numpy()})
    paths = {f"fine-tune {n}": folder / f"fine-tune-{n}.safetensors" for n in range(count)}
    members = [
        SoupMember(name, path, lambda path=path: Keyword(loaded(path)))
        for name, path in paths.items()
    ]
    options = SoupOptions("greedy" if kind == "greedy" else "uniform")
    return make_soup(members, evaluator, folder / f"{kind}-soup", options)


def tasks(found: Data, base: nn.Module, folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Rows: a model, and its accuracy on each task's test digits."""
    models = {"base": base}
    for n, task in enumerate(("upside_down", "mirrored")):
        models[task] = train(
            found.train, 200 + n, 1e-3, 15, start=base, change=TASKS[task]
        )  # fmt: skip
    for name, model in models.items():
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    for name in CONFIGS:
        out = folder / name
        merge(RECIPES / f"{name}.yml", out, MergeOptions(folder=folder))
        models[name] = loaded(out / "model.safetensors")
    for name, model in models.items():
        yield name, [accuracy(model, found.test, change) for change in TASKS.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/digits_merging"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    found = data(options.seed)
    base = train(found.train, options.seed, 3e-3, 10)
    show(
        "Accuracy on 997 digits that nothing was chosen by",
        ("model", "", "accuracy"),
        [("base", "", f"{accuracy(base, found.test):.2%}")]
        + [(name, told, f"{score:.2%}") for name, told, score in soups(found, base, options.out)],
    )
    show(
        "Accuracy by task",
        ("model", *TASKS),
        [
            (name, *(f"{score:.2%}" for score in row))
            for name, row in tasks(found, base, options.out)
        ],
    )


def show(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for n, heading in enumerate(headings):
        table.add_column(heading, justify="right" if n else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
