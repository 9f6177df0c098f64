"""Linear is a logical OR, log-linear an AND: two pairs of digit classifiers, both ways.

    python samples/or_and.py --seeds 5             # the table
    python samples/or_and.py --figures docs/figures

**Each member sees half of every image.** A digit must look right from above *and* from below, so
the product of the members' distributions (log-linear) is what is wanted: either may veto.

**Each member knows half of the classes**, 0 to 4 or 5 to 9, and spreads its probability over those
where it sees another digit. A digit is what one *or* the other takes it for, so the mixture
(linear) is what is wanted: in the product, each vetoes all that only the other knows.

500 of scikit-learn's digits train the members, 1,297 are held out. What is measured and drawn comes
from the graphs that ``toolkit`` exports.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
import yaml
from digits_train import BATCH, Digits, split
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import nn

from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

RECIPES = Path(__file__).resolve().parent / "recipes"
sys.path.insert(0, str(RECIPES))  # the toolkit does the same for a recipe's factories

import or_and_models  # noqa: E402

EPOCHS = 40
RATE = 3e-3
COMBINATIONS = ("linear", "log_linear")
Array = npt.NDArray[np.float32]
# By pair: name, factory, its arguments, and the classes that the member is taught.
PAIRS: Mapping[str, tuple[tuple[str, str, dict[str, bool], range], ...]] = {
    "half of the image": (
        ("upper", "half_image", {"lower": False}, range(10)),
        ("lower", "half_image", {"lower": True}, range(10)),
    ),
    "half of the classes": (
        ("zero_to_four", "some_classes", {}, range(5)),
        ("five_to_nine", "some_classes", {}, range(5, 10)),
    ),
}


def targets(labels: torch.Tensor, known: range) -> torch.Tensor:
    """Distributions [n, 10] to learn: the label where it is known, else all that is known alike."""
    wanted = nn.functional.one_hot(labels, 10).float()
    unknown = (labels < known.start) | (labels >= known.stop)
    wanted[unknown] = 0.0
    wanted[unknown, known.start : known.stop] = 1 / len(known)
    return wanted


def train(module: nn.Module, digits: Digits, known: range, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    wanted = targets(digits.label, known)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(wanted)).split(BATCH):
            (logits,) = module(digits.image[batch])
            loss = nn.functional.cross_entropy(logits, wanted[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


def graphs_of(pair: str, digits: Digits, seed: int, folder: Path) -> dict[str, Path]:
    """Train a pair and export both members and both ensembles; the graph of each by name."""
    (folder / "or_and_models.py").write_bytes((RECIPES / "or_and_models.py").read_bytes())
    members = []
    for index, (name, factory, kwargs, known) in enumerate(PAIRS[pair]):
        module = train(getattr(or_and_models, factory)(**kwargs), digits, known, 10 * seed + index)
        save_file(module.state_dict(), folder / f"{name}.safetensors")
        weights = f"{name}.safetensors"
        made = {"factory": f"or_and_models:{factory}", "weights": weights, "kwargs": kwargs}
        members.append({"name": name, **made})
    models = {str(member["name"]): member for member in members}
    for combine in COMBINATIONS:
        models[combine] = {"ensemble": {"combine": combine, "members": members}}
    return {name: _export(name, model, folder) for name, model in models.items()}


def _export(name: str, model: object, folder: Path) -> Path:
    recipe = {
        "model": model,
        "inputs": {"image": "float32[batch, 1, 8, 8]"},
        "shapes": {"batch": [1, 64, 2048]},
        "parity": {"cases": 2},
        "target": "onnx",
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    export_recipe(load_recipe(path, allow_code=True), folder, folder / name)
    return folder / name / "model.onnx"


def distributions(graph: Path, digits: Digits) -> Array:
    """Probabilities [n, 10] by ONNX Runtime; what ensembles give are log probabilities."""
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": digits.image.numpy()})
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    found: Array = odds / odds.sum(-1, keepdims=True)
    return found


def figure(pair: str, found: Mapping[str, Array], digits: Digits, path: Path) -> None:
    """The distributions over one digit that the right combination gets right and the other not."""
    right, wrong = COMBINATIONS if pair.endswith("classes") else COMBINATIONS[::-1]
    label = digits.label.numpy()
    hits = (found[right].argmax(-1) == label) & (found[wrong].argmax(-1) != label)
    # The one that the right combination is surest of.
    place = int(np.where(hits, found[right][np.arange(len(label)), label], -1).argmax())
    with mpl.rc_context({"svg.hashsalt": pair, "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(8, 2.2), layout="constrained")
        image, *others = drawn.subplots(1, 5, width_ratios=[0.8, 1, 1, 1, 1])
        image.imshow(digits.image[place, 0], cmap="gray_r")
        image.set_title(f"a {label[place]}")
        image.set_axis_off()
        for axes, name in zip(others, found, strict=True):
            colours = ["#c44" if digit == label[place] else "#78a" for digit in range(10)]
            axes.bar(range(10), found[name][place], color=colours)
            axes.set_title(name.replace("_", " "))
            axes.set_ylim(0, 1)
            axes.set_xticks(range(10))
            axes.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    bare = re.sub(r"\s*<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    path.write_text(bare, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Linear as OR, log-linear as AND.")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1")
    parser.add_argument("--figures", type=Path, help="folder to draw seed 0's figures into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for pair in PAIRS:
        scores: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            seen, held_out = split(seed)
            with tempfile.TemporaryDirectory() as name:
                made = graphs_of(pair, seen, seed, Path(name))
                found = {name: distributions(graph, held_out) for name, graph in made.items()}
            for name, probabilities in found.items():
                accuracy = held_out.accuracy(torch.from_numpy(probabilities))
                scores.setdefault(name, []).append(accuracy)
            if seed == 0 and options.figures:
                which = "or" if pair.endswith("classes") else "and"
                figure(pair, found, held_out, options.figures / f"{which}.svg")
        print(f"each member knows {pair}: accuracy in per cent, mean of {options.seeds} seeds")
        for name, values in scores.items():
            print(
                f"  {name:<13} {100 * np.mean(values):6.2f}  {np.round(100 * np.array(values), 2)}"
            )


if __name__ == "__main__":
    main()
