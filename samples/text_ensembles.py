"""Language models combined in every way, on text that none has seen, from the exported graphs.

    python samples/text_train.py         # trains the members, a few minutes
    python samples/text_ensembles.py     # fits weights, gate and combiner, exports, measures

Members are three small models of different architectures (``text_train.py``). Weights, gate and
combiner are fitted to passages that no member was trained on; perplexity is measured on others
again, by ONNX Runtime on the graphs that ``toolkit`` exports and proves.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import yaml
from text_train import MEMBERS, VOCABULARY, WEIGHTS
from tokenizers import Tokenizer

from toolkit.fitting import TrainingOptions
from toolkit.pipeline import FitOptions, export_recipe, fit_recipe
from toolkit.recipe import Recipe, load_recipe

WINDOW = 128
NAMES = tuple(MEMBERS)


def recipe_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of any model of the members."""
    return {
        "model": dict(model),
        "shapes": {"batch": [1, 4, 8], "sequence": [1, 32, WINDOW]},
        "parity": {"cases": 2},
        "target": "onnx",
    }


def models(weights: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, Any]]:
    """Members and combinations by name; ``weights`` are the fitted constants by combination."""
    members = [{"checkpoint": name} for name in NAMES]

    def ensemble(combine: str, **more: Any) -> dict[str, Any]:
        return {"ensemble": {"combine": combine, **more, "members": members}}

    kwargs = {"vocabulary": VOCABULARY, "members": len(members), "width": 8}
    gate = {"factory": "toolkit.gates:tokens", "weights": "gate.safetensors", "kwargs": kwargs}
    return {
        **{name: {"checkpoint": name} for name in NAMES},
        "linear, uniform": ensemble("linear"),
        "linear, fitted": ensemble("linear", weights=list(weights["linear"])),
        "linear, gated": ensemble("linear", gate={"model": gate}),
        "log-linear, uniform": ensemble("log_linear"),
        "log-linear, fitted": ensemble("log_linear", weights=list(weights["log_linear"])),
        "stacked": stacked(members),
    }


def stacked(members: list[dict[str, str]]) -> dict[str, Any]:
    """A combiner over what all members say about every position."""
    names = [f"{name}_logits" for name in NAMES]
    type_ = f"float32[batch, sequence, {VOCABULARY}]"
    combiner = {
        "factory": "toolkit.gates:combiner",
        "weights": "combiner.safetensors",
        "kwargs": {"logits": ", ".join(names), "classes": VOCABULARY},
    }
    feeds = {
        feed: {"output": f"{name}/logits", "type": type_}
        for feed, name in zip(names, NAMES, strict=True)
    }
    return {"stack": {"stages": [*members, combiner], "feeds": feeds}}


def fitted(folder: Path) -> dict[str, tuple[float, ...]]:
    """Fit constants of both kinds; train the gate and the combiner into ``folder``."""
    uniform = dict.fromkeys(("linear", "log_linear"), (1 / len(NAMES),) * len(NAMES))
    constant = FitOptions(constant=True, window=WINDOW, batch=16, cache=folder / "said")
    found = {}
    for combine in uniform:
        model = models(uniform)[f"{combine.replace('_', '-')}, uniform"]
        found[combine] = fit_recipe(
            _recipe(model, folder), folder, folder / "fit.txt", None, constant
        ).weights
    for name, options in (
        ("linear, gated", TrainingOptions(epochs=60, patience=8, rate=1e-3)),
        ("stacked", TrainingOptions(epochs=20, patience=3, rate=3e-5)),
    ):
        recipe = _recipe(models(uniform)[name], folder)
        training = FitOptions(window=WINDOW, batch=16, cache=folder / "said", training=options)
        fit_recipe(recipe, folder, folder / "fit.txt", None, training)
    return found


def _recipe(model: Mapping[str, Any], folder: Path) -> Recipe:
    """A recipe of the model beside the members; what is to be trained need not be there."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(model)), encoding="utf-8")
    return load_recipe(path, gate_to_come=True)


def perplexity(graph: Path, tokens: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Of windows of the text that do not overlap, by ONNX Runtime."""
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    count = (len(tokens) - 1) // WINDOW
    inputs = tokens[: count * WINDOW].reshape(count, WINDOW)
    labels = tokens[1 : count * WINDOW + 1].reshape(count, WINDOW)
    total = 0.0
    for start in range(0, count, 8):
        ids, wanted = inputs[start : start + 8], labels[start : start + 8]
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        (logits,) = session.run(["logits"], feeds)
        wide = logits.astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        said = np.take_along_axis(wide, wanted[..., None], -1)[..., 0]
        total += float((np.log(np.exp(wide).sum(-1)) - said).sum())
    return math.exp(total / labels.size)


def main() -> None:
    parser = argparse.ArgumentParser(description="Combine small language models in every way.")
    parser.add_argument("--members", type=Path, default=WEIGHTS, help="what text_train.py wrote")
    options = parser.parse_args()
    root = options.members
    tokenizer = Tokenizer.from_file(str(root / NAMES[0] / "tokenizer.json"))
    text = (root / "test.txt").read_text(encoding="utf-8")
    tokens = np.array(tokenizer.encode(text).ids, np.int64)
    weights = fitted(root)
    for combine, found in weights.items():
        shown = ", ".join(f"{name} {w:.3f}" for name, w in zip(NAMES, found, strict=True))
        print(f"{combine} weights that were fitted: {shown}")
    with tempfile.TemporaryDirectory() as name:
        for title, model in models(weights).items():
            out = Path(name) / "bundle"
            export_recipe(_recipe(model, root), root, out)
            print(
                f"{title:<20} perplexity {perplexity(out / 'model.onnx', tokens):7.2f}", flush=True
            )


if __name__ == "__main__":
    main()
