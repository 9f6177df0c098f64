"""Whether an ``If`` skips: a layer of experts that runs few of them, and one that runs all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import graphs

__all__ = ["layer_feeds", "lowered_layer"]


def lowered_layer(graph: Path, folder: Path) -> tuple[Path, graphs.ExpertLayer]:
    """The first layer of experts of an exported graph alone, an ``If`` for each expert.

    Its routing is an input, so that a run can be given any.

    Args:
        graph: A graph whose experts were kept as they were exported.
        folder: Where to write.
    """
    layer = graphs.expert_layers(graph)[0]
    cut, lowered = folder / "layer.onnx", folder / "conditionals.onnx"
    graphs.cut_experts(graph, layer.name, cut)
    graphs.rewrite(cut, [graphs.ExpertsToConditionals()], lowered)
    return lowered, layer


def layer_feeds(layer: graphs.ExpertLayer, tokens: int, active: int) -> dict[str, npt.NDArray[Any]]:
    """Random rows that go to the first ``active`` experts, as evenly as they can."""
    random = np.random.default_rng(0)
    k = max(layer.top_k, 1)
    places = np.arange(tokens * k).reshape(tokens, k) % max(active, k)
    logits = np.full((tokens, layer.experts), -8.0, np.float32)
    np.put_along_axis(logits, places, 8.0 + random.random(places.shape, np.float32), axis=1)
    ids = np.argsort(-logits, axis=1)[:, :k].astype(np.int64)
    x = random.normal(size=(tokens, layer.hidden)).astype(np.float32)
    return {"x": x, "logits": logits, "ids": np.ascontiguousarray(ids)}
