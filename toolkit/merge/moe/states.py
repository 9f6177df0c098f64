"""What every layer of a dense model sees at prompts, from one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toolkit.errors import MergeError
from toolkit.progress import Progress, silent
from toolkit.sources import HuggingFaceSource

__all__ = ["hidden_states"]

Array = npt.NDArray[Any]


def hidden_states(
    folder: Path,
    prompts: Sequence[Array],
    *,
    router_input: bool,
    average: bool,
    progress: Progress = silent,
) -> Array:
    """States of each prompt in each layer, ``float64[prompts, layers, hidden]``.

    The model is held in float32. Prompts run one at a time, so none is padded.

    Args:
        folder: A Llama-like checkpoint, whose layers normalise what enters their feed-forward
            network by ``post_attention_layernorm``.
        prompts: Token numbers, ``int64[tokens]`` each.
        router_input: Take what the feed-forward network sees; else what enters the layer.
        average: Take the mean over tokens; else the last one.
        progress: Told prompts read.

    Raises:
        MergeError: If a prompt is longer than the model's positions, or states are not finite.
        CheckpointError: If the model cannot be loaded.
    """
    source = HuggingFaceSource(folder.name, folder, "causal-lm")
    _check_lengths(prompts, source)
    module = source.load()
    layers = list(module.get_submodule("model.model.layers").children())
    seen: list[Array] = []

    def keep(state: torch.Tensor) -> None:
        rows = state[0].double()
        seen.append((rows.mean(0) if average else rows[-1]).numpy())

    hooks = [_hook(layer, keep, router_input=router_input) for layer in layers]
    found = []
    try:
        with torch.inference_mode():
            for number, ids in enumerate(prompts):
                progress("reading prompts", number, len(prompts))
                tokens = torch.from_numpy(ids)[None]
                module(input_ids=tokens, attention_mask=torch.ones_like(tokens))
                found.append(np.stack(seen))
                seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    states = np.stack(found)
    if not np.isfinite(states).all():
        raise MergeError(f"{folder} gives states that are not finite, so its weights are damaged")
    return states


def _hook(layer: nn.Module, keep: Callable[[torch.Tensor], None], *, router_input: bool) -> Any:
    if router_input:
        norm = layer.get_submodule("post_attention_layernorm")
        return norm.register_forward_hook(lambda _module, _inputs, output: keep(output))
    return layer.register_forward_pre_hook(lambda _module, inputs: keep(inputs[0]))


def _check_lengths(prompts: Sequence[Array], source: HuggingFaceSource) -> None:
    longest, most = max(map(len, prompts)), source.max_sequence
    if most is not None and longest > most:
        raise MergeError(
            f"a prompt has {longest} tokens, and {source.folder} has {most} positions",
            hint="shorten the prompt",
        )
