"""Ensembles of small text classifiers, exported by the real pipeline, to be served."""

from __future__ import annotations

from pathlib import Path

import torch

from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe

__all__ = ["LONG", "MEMBERS", "SHORT", "write_bundle"]

MEMBERS = 3
SHORT, LONG = 8, 128

_RECIPE = """
model:
  ensemble:
    combine: linear
    weights: [{weights}]
    members: [{members}]
shapes: {{batch: [1, 4, 16], sequence: [2, {short}, {long}]}}
parity: {{cases: 1}}
"""


def write_bundle(folder: Path, *, shared: bool, layers: int, width: int) -> Path:
    """Export an ensemble of BERTs.

    Args:
        folder: Where models, recipe and bundle go.
        shared: Whether all but the last layer and the head are one frozen backbone.
        layers: Of each member.
        width: Of each layer.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True)
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=4 * width, max_position_embeddings=LONG, num_labels=4,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    own = (f"bert.encoder.layer.{layers - 1}.", "bert.pooler.", "classifier.")
    for number in range(MEMBERS):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not shared or name.startswith(own):
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
        model.save_pretrained(folder / f"m{number}")
    names = [f"m{number}" for number in range(MEMBERS)]
    weights = [round(1 / MEMBERS, 9)] * (MEMBERS - 1)
    text = _RECIPE.format(
        weights=", ".join(map(str, [*weights, 1 - sum(weights)])),
        members=", ".join(f"{{checkpoint: {name}, name: {name}}}" for name in names),
        short=SHORT, long=LONG,
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    export_recipe(load_recipe(folder / "recipe.yaml"), folder, folder / "bundle")
    return folder / "bundle"
