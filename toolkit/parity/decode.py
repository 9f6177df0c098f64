"""Decoding with a cache: the model feeds what it gave before, step after step.

The reference chooses the tokens, greedily and with its own cache; every other model is given the
same tokens and its *own* cache, so that its logits can be held against the reference's at every
step. Where the model's own choice is the reference's at every step, which ``choice`` and the
report's top choice say, these are the tokens it would have decoded by itself.

``split prefill`` gives the prompt in two parts and must end where the prompt in one part ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import Shapes, TensorSpec
from toolkit.caches import PRESENT
from toolkit.feeds import Caches, Case, caches_of, make_feeds
from toolkit.feeds.cases import Arrays, Model

__all__ = ["decode_cases"]

_STEPS = 32

_Array = npt.NDArray[Any]


def decode_cases(
    inputs: Sequence[TensorSpec], outputs: Sequence[str], shapes: Shapes, *, seed: int
) -> tuple[Case, ...]:
    """A decode of 32 steps, or as many as the shapes allow, and a prefill in two parts."""
    caches = caches_of(inputs, outputs)
    if caches is None:
        return ()
    rows, new = (str(dim) for dim in next(s.shape for s in inputs if s.name == caches.ids))
    past = next(s.shape[2] for s in inputs if s.name == caches.past[0])
    room = shapes[str(past)].max
    prompt = max(1, min(shapes[new].opt, room // 2))
    steps = min(_STEPS, room - prompt + 1)
    symbols = {dim for spec in inputs if spec.name in caches.source for dim in spec.symbols}
    beside = {dim: shapes[dim].opt for dim in sorted(symbols - {rows, new})}
    found = []
    if shapes[new].min == 1 and shapes[str(past)].min == 0 and steps > 1:
        dims = {rows: shapes[rows].opt, new: prompt, **beside}
        make = partial(_prompt, caches, dims, seed)
        name = f"decode {steps} steps: " + " ".join(f"{k}={v}" for k, v in dims.items())
        found.append(Case(name, "decode", dims, make, _Decode(caches, steps)))
    longest = min(shapes[new].max, room + 1)
    if longest > 1 and shapes[str(past)].min == 0:
        dims = {rows: shapes[rows].opt, new: longest, **beside}
        make = partial(_prompt, caches, dims, seed)
        first = max(1, min(longest // 2, room))
        name = f"prefill {first} + {longest - first}: {rows}={dims[rows]}"
        found.append(Case(name, "split prefill", dims, make, _Split(caches, first)))
    return tuple(found)


def _prompt(caches: Caches, dims: Mapping[str, int], seed: int) -> Arrays:
    """Tokens, and the source of a decoder that has one, padded at random."""
    specs = [spec for spec in caches.inputs if spec.name in {caches.ids, *caches.source}]
    return make_feeds(specs, dims, np.random.default_rng((seed, 2)), "random")


@dataclass
class _Decode:
    """Runs the steps; the first model that decodes, the reference, chooses the tokens."""

    caches: Caches
    steps: int
    tokens: list[_Array] = field(default_factory=list)

    def __call__(self, model: Model, prompt: Arrays) -> Arrays:
        """Logits [batch, steps, vocabulary] of the last position, and the caches at the end."""
        ids = prompt[self.caches.ids]
        past = self.caches.empty(len(ids))
        logits: list[_Array] = []
        for step in range(self.steps):
            found = model(self.caches.feeds(ids, past, prompt))
            past = self.caches.kept(found)
            logits.append(found["logits"][:, -1:])
            if len(self.tokens) == step:
                self.tokens.append(logits[-1].argmax(-1).astype(ids.dtype))
            ids = self.tokens[step]
        last = {name: found[name] for name in found if name.startswith(PRESENT)}
        return {"logits": np.concatenate(logits, axis=1), **last}


@dataclass
class _Split:
    """Runs the prompt; the first model, the reference, in one part, every other one in two."""

    caches: Caches
    first: int
    asked: bool = False

    def __call__(self, model: Model, prompt: Arrays) -> Arrays:
        """The outputs of the whole prompt: two parts must give what one part gives."""
        ids, first = prompt[self.caches.ids], self.first
        empty = self.caches.empty(len(ids))
        if not self.asked:
            self.asked = True
            return model(self.caches.feeds(ids, empty, prompt))
        head = model(self.caches.feeds(ids[:, :first], empty, prompt))
        tail = model(self.caches.feeds(ids[:, first:], self.caches.kept(head), prompt))
        logits = np.concatenate([head["logits"], tail["logits"]], axis=1)
        last = {name: tail[name] for name in tail if name.startswith(PRESENT)}
        return {"logits": logits, **last}
