"""The first rows of each layer's router: one per expert, from prompts or at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.kernels.philox import key
from toolkit.merge.models import Model
from toolkit.merge.moe.config import PROMPT_MODES, ExpertSource, MoeConfig
from toolkit.merge.moe.prompts import token_numbers
from toolkit.merge.tensors import STORED, FileTensor, convert
from toolkit.progress import Progress

__all__ = ["degenerate", "gate_rows"]

Array = npt.NDArray[Any]

EMBEDDING = "model.embed_tokens.weight"
# Condition number of a router above which experts are hard to tell apart; mergekit warns there.
_ILL = 5.0


def gate_rows(config: MoeConfig, base: Model, layers: int, seed: int, progress: Progress) -> Array:
    """Rows of all routers, ``float32[layers, experts, hidden]``.

    A row of prompts has length 1; with a shared expert, its row comes last: of its own prompts,
    drawn like the others, or zeros, by which half of it is added always.

    Args:
        config: The mixture.
        base: Reads the prompts.
        layers: How many it has.
        seed: Of what is drawn.
        progress: Told prompts read.

    Raises:
        MergeError: If prompts cannot be read, or leave nothing to point at.
        CheckpointError: If the base cannot be loaded.
    """
    vocabulary, hidden = base.tensors[EMBEDDING].shape
    experts = [*config.experts, *(config.shared_experts or ())]
    if config.gate_mode not in PROMPT_MODES:
        return np.stack([_drawn(config.gate_mode, seed, n, experts, hidden) for n in range(layers)])
    adapted = not all(isinstance(tensor, FileTensor) for tensor in base.tensors.values())
    if adapted and config.gate_mode != "cheap_embed":
        raise MergeError(
            f"base_model is {base.label}, and hidden states are those of a folder",
            hint="merge the adapter into it first (merge_method: passthrough)",
        )
    assert base.folder is not None
    texts = [expert.prompts for expert in experts if expert.positive_prompts]
    flat = [prompt for sides in texts for side in sides for prompt in side]
    tokens = token_numbers(flat, base.folder, vocabulary)
    every = _embedded(tokens, base) if config.gate_mode == "cheap_embed" else None
    if every is None:
        every = _hidden(config, base, tokens, progress)
    rows, at = np.zeros((len(every[0]), len(experts), hidden)), 0
    for number, (positive, negative) in enumerate(texts):
        sides = []
        for side in (positive, negative):
            sides.append(every[at : at + len(side)])
            at += len(side)
        rows[:, number] = _direction(sides[0], sides[1], experts[number], config.gate_mode)
    repeats = layers if config.gate_mode == "cheap_embed" else 1
    return np.repeat(rows, repeats, 0).astype(np.float32)


def _drawn(mode: str, seed: int, layer: int, experts: Sequence[ExpertSource], hidden: int) -> Array:
    """One layer's rows: standard normal, or uniform as ``torch.nn.Linear`` begins."""
    generator = np.random.default_rng(key(seed, mode, str(layer)))
    shape = (len(experts), hidden)
    if mode == "random":
        return generator.standard_normal(shape).astype(np.float32)
    bound = 1 / math.sqrt(hidden)
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def _hidden(config: MoeConfig, base: Model, tokens: Sequence[Array], progress: Progress) -> Array:
    from toolkit.merge.moe.states import hidden_states  # noqa: PLC0415  (torch loads with it)

    assert base.folder is not None
    return hidden_states(
        base.folder,
        tokens,
        router_input=config.gate_state == "router_input",
        average=config.gate_mode == "hidden_avg",
        progress=progress,
    )


def _embedded(tokens: Sequence[Array], base: Model) -> Array:
    """The sum of each prompt's embeddings, ``float64[prompts, 1, hidden]``; only these are read."""
    tensor = base.tensors[EMBEDDING]
    hidden = tensor.shape[1]
    row = np.empty(hidden, STORED[tensor.dtype])
    wide = np.empty(hidden, np.float64)
    sums = np.zeros((len(tokens), 1, hidden))
    for number, ids in enumerate(tokens):
        for token in ids:
            tensor.read(int(token) * hidden, row)
            convert(row, tensor.dtype, wide)
            sums[number] += wide
    return sums


def _direction(positive: Array, negative: Array, expert: ExpertSource, mode: str) -> Array:
    """What positive prompts have and negative ones have not, at length 1, ``[layers, hidden]``."""
    if mode == "cheap_embed":
        found = _unit(positive.sum(0))
        found = found - _unit(negative.sum(0)) if len(negative) else found
    else:
        found = positive.mean(0)
        found = found - negative.mean(0) if len(negative) else found
    if not np.linalg.norm(found, axis=-1).min() > 1e-8:
        raise MergeError(
            f"the prompts of {expert.source_model} leave no direction: positive and negative ones "
            "give the same states"
        )
    return _unit(found)


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-8))


def degenerate(rows: Array) -> list[str]:
    """A warning if experts are hard to tell apart by these rows, ``[layers, experts, hidden]``."""
    ill = [n for n, layer in enumerate(rows) if np.linalg.cond(layer.astype(np.float64)) > _ILL]
    if not ill:
        return []
    warning = (
        f"in {len(ill)} of {len(rows)} layers the gate's rows are nearly alike (condition number "
        f"above {_ILL:g}): prompts are too similar, and some experts will be chosen for everything"
    )
    return [warning]
