"""A sparse Mixture-of-Experts on handwritten digits: trained, exported, and who does what.

    python samples/digits_moe.py                          # trains, exports, prints the table
    python samples/digits_moe.py --figures docs/figures   # and draws which digit goes where

The same classifier is trained twice on 500 of scikit-learn's digits, with the losses that balance
its experts (Shazeer et al. 2017) and without them; 1,297 digits are held out. The balanced one is
exported by ``toolkit``, and its graph has to predict what PyTorch predicts.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnxruntime as ort
import torch
from digits_train import BATCH, WEIGHTS, Digits, split
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import nn

from toolkit.nn import balance_loss
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "samples" / "recipes"
sys.path.insert(0, str(RECIPES))  # the toolkit does the same for a recipe's factories

import digits_moe_models  # noqa: E402

EPOCHS = 60
RATE = 3e-3
BUNDLE = ROOT / "build" / "digits_moe"


def train(digits: Digits, seed: int, *, balanced: bool, epochs: int) -> digits_moe_models.Moe:
    """A trained classifier; the same arguments give the same weights."""
    torch.manual_seed(seed)
    model = digits_moe_models.moe().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.label)).split(BATCH):
            loss = nn.functional.cross_entropy(model(digits.image[batch]), digits.label[batch])
            if balanced:
                loss = loss + balance_loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def usage(model: digits_moe_models.Moe, digits: Digits) -> torch.Tensor:
    """How often each digit is given to each expert, [10, experts]; rows sum to 1."""
    _, ids = model.sparse.choose(model.tokens(digits.image))
    experts = len(model.sparse.gate)
    chosen = nn.functional.one_hot(ids, experts).sum(1).double()
    counts = torch.stack([chosen[digits.label == digit].sum(0) for digit in range(10)])
    return counts / counts.sum(1, keepdim=True)


def busy(model: digits_moe_models.Moe, digits: Digits) -> tuple[int, float]:
    """How many experts hear more than 1 % of the choices, and the share of the busiest."""
    shares = usage(model, digits).mean(0)
    return int((shares > 0.01).sum()), shares.max().item()


def export(model: nn.Module) -> Path:
    """Save the weights where the recipe looks for them, and export it; its graph."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), WEIGHTS / "moe.safetensors")
    recipe = load_recipe(RECIPES / "digits_moe.yaml", allow_code=True)
    outcome = export_recipe(recipe, RECIPES, BUNDLE)
    if not outcome.report.passed:
        sys.exit(f"the parity proof failed: {outcome.folder}/report.html")
    return outcome.folder / "model.onnx"


def figure(models: Mapping[str, digits_moe_models.Moe], digits: Digits, path: Path) -> None:
    """Which digit goes to which expert, one picture per model."""
    with mpl.rc_context({"svg.hashsalt": "moe", "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, (name, model) in zip(
            drawn.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True
        ):
            shown = axes.imshow(usage(model, digits), cmap="Blues", vmin=0, vmax=0.5)
            axes.set_title(name)
            axes.set_xlabel("expert")
            axes.set_ylabel("digit")
            axes.set_yticks(range(10))
        drawn.colorbar(shown, ax=drawn.axes, label="share of the digit's choices")
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    bare = re.sub(r"\s*<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    path.write_text(bare, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="A sparse Mixture-of-Experts on digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--figures", type=Path, help="folder to draw digits_moe.svg into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen, held_out = split(options.seed)
    models = {
        name: train(seen, options.seed, balanced=balanced, epochs=options.epochs)
        for name, balanced in (("balanced", True), ("without the losses", False))
    }
    for name, model in models.items():
        with torch.no_grad():
            accuracy = held_out.accuracy(model(held_out.image))
        used, busiest = busy(model, held_out)
        print(f"{name:<19} accuracy {accuracy:.2%}, {used} experts used, busiest {busiest:.0%}")
    graph = export(models["balanced"])
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    found = [
        session.run(None, {"image": image.numpy()})[0] for image in held_out.image.split(BATCH)
    ]
    with torch.no_grad():
        wanted = models["balanced"](held_out.image).argmax(-1).numpy()
    differ = int((np.concatenate(found).argmax(-1) != wanted).sum())
    print(f"{graph.relative_to(ROOT)}: {differ} of {len(wanted)} digits predicted differently")
    if options.figures:
        figure(models, held_out, options.figures / "digits_moe.svg")
    if differ:
        sys.exit(1)


if __name__ == "__main__":
    main()
