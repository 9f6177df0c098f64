"""How language models go on from where a batch begins: beams and samples, many texts at once.

Whatever says what comes next may continue a text: a student, a teacher, or an ensemble, whose
mixture is then what is searched (not the beams of each member). Any model can be used, gates and
stacks included; those that remember what they have read (``toolkit.distill.remembering``) read one
token at a time, others the whole text again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from toolkit.distill.remembering import Remembering
from toolkit.distill.types import INDEX, LABELS, Batch, Task
from toolkit.errors import RecipeError

__all__ = ["Beginning", "Hypothesis", "SearchOptions", "Speak", "beam_search", "begin", "sample"]

# Feeds of R rows to logits [R, S, V]; of the last n positions where it is a ``Remembering``.
Speak: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]

_IDS, _MASK, _SPOKEN = "input_ids", "attention_mask", "decoder_input_ids"
_BY_POSITION = ("position_ids", "token_type_ids")


@dataclass(frozen=True)
class SearchOptions:
    """How far texts are continued.

    Attributes:
        beams: Hypotheses that are kept at a time.
        max_new_tokens: Most tokens of a continuation.
        length_penalty: A finished hypothesis is rated by its log probability over its length to
            this power.
        ends: Tokens that end a text.
        prompt: Tokens of each row that a causal model is given; the rest is its reference.
    """

    beams: int = 5
    max_new_tokens: int = 64
    length_penalty: float = 1.0
    ends: tuple[int, ...] = ()
    prompt: int = 1

    def __post_init__(self) -> None:
        for name in ("beams", "max_new_tokens", "prompt"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, wanted at least 1")


@dataclass(frozen=True)
class Hypothesis:
    """A continuation.

    Attributes:
        score: Log probability over length to the power of the penalty.
        tokens: With the one that ends it, if one does.
    """

    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Beginning:
    """Where texts begin.

    Attributes:
        task: ``causal-lm`` or ``seq2seq-lm``.
        tokens: What is there, int64 [B, P], padded on the right with 0.
        lengths: How much of it, int64 [B].
        source: What does not change, of an encoder-decoder model [B, S].
        others: Names of further inputs that go by position.
    """

    task: Task
    tokens: Tensor
    lengths: Tensor
    source: Mapping[str, Tensor] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def rows(self, of: Tensor) -> Beginning:
        """The texts of these numbers, int64 [R]."""
        source = {name: value[of] for name, value in self.source.items()}
        return replace(self, tokens=self.tokens[of], lengths=self.lengths[of], source=source)

    def with_token(self, tokens: Tensor) -> Beginning:
        """Every text with one more token, int64 [R]."""
        wide = torch.nn.functional.pad(self.tokens, (0, 1))
        wide = wide[:, : int(self.lengths.max()) + 1]
        wide = wide.scatter(1, self.lengths.unsqueeze(1), tokens.unsqueeze(1))
        return replace(self, tokens=wide, lengths=self.lengths + 1)

    def next_logits(self, speak: Speak) -> Tensor:
        """What may come next, [R, V]."""
        tokens = self.tokens[:, : int(self.lengths.max())]
        rows = torch.arange(len(tokens), device=tokens.device)
        if self.task == "seq2seq-lm":
            feeds = {**self.source, _SPOKEN: tokens}
        else:
            places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            feeds = {_IDS: tokens, _MASK: (places < self.lengths.unsqueeze(1)).long()}
            given = {"position_ids": places, "token_type_ids": torch.zeros_like(tokens)}
            feeds.update({name: given[name] for name in self.others})
        logits = speak(feeds)
        skipped = tokens.shape[1] - logits.shape[1]
        return logits[rows, self.lengths - 1 - skipped]


def begin(task: Task, batch: Batch, options: SearchOptions) -> Beginning:
    """Where the texts of a batch begin.

    Of a causal model the first ``prompt`` tokens of each row; of an encoder-decoder model the
    source, and the token that decoding starts with.

    Raises:
        RecipeError: If the task is to continue no text, or a row is no longer than its prompt.
    """
    if task == "seq2seq-lm":
        started = batch[_SPOKEN][:, :1]
        source = {n: v for n, v in batch.items() if n not in {_SPOKEN, LABELS, INDEX}}
        return Beginning(task, started, torch.ones_like(started[:, 0]), source)
    if task != "causal-lm":
        raise RecipeError(
            f"a {task} model continues no text, so nothing can be learnt from sequences",
            hint="level: word",
        )
    ids = batch[_IDS]
    real = batch[_MASK].sum(-1) if _MASK in batch else torch.full_like(ids[:, 0], ids.shape[1])
    if int(real.min()) <= options.prompt:
        raise RecipeError(
            f"a row has {int(real.min())} tokens, and {options.prompt} of each are the prompt",
            hint="longer rows, or a shorter prompt",
        )
    others = tuple(name for name in _BY_POSITION if name in batch)
    lengths = torch.full_like(real, options.prompt)
    return Beginning(task, ids[:, : options.prompt], lengths, others=others)


def beam_search(
    speak: Speak, beginning: Beginning, options: SearchOptions
) -> list[list[Hypothesis]]:
    """The best continuations of every text, best first, at most ``beams`` of each.

    The rules are those of Hugging Face's generation with ``early_stopping`` off: so many
    continuations are looked at that enough are left if every end is among them; one that ends is
    rated by its log probability over its length to the power of the penalty, and so are those that
    run when the length has run out; a text is done when no running hypothesis can beat the worst of
    the finished ones at its present length.
    """
    beams = options.beams
    looked_at = max(2, 1 + len(options.ends)) * beams
    searches = [_Search(options) for _ in range(len(beginning.tokens))]
    active = torch.arange(len(searches), device=beginning.tokens.device)
    rows = beginning.rows(active.repeat_interleave(beams))
    memory = _begun(speak)
    scores = torch.full((len(searches), beams), -torch.inf, device=active.device)
    # All rows of a text are the same at first, so only one of them may be continued.
    scores[:, 0] = 0.0
    for length in range(1, options.max_new_tokens + 1):
        with torch.no_grad():
            logs = torch.log_softmax(rows.next_logits(speak).float(), -1)
        total = (scores.reshape(-1, 1) + logs).reshape(len(active), -1)
        best, places = total.topk(min(looked_at, total.shape[-1]), dim=-1)
        width = logs.shape[-1]
        chosen: list[list[tuple[float, int, int]]] = []
        going: list[int] = []
        found = zip(active.tolist(), best.tolist(), places.tolist(), strict=True)
        for number, (text, values, where) in enumerate(found):
            ranked = [(v, p // width, p % width) for v, p in zip(values, where, strict=True)]
            running, done = searches[text].step(ranked, length)
            if not done:
                going.append(number)
                chosen.append(running)
        if not going:
            break
        device = active.device
        kept = [n * beams + row for n, run in zip(going, chosen, strict=True) for _, row, _ in run]
        tokens = torch.tensor([token for run in chosen for _, _, token in run], device=device)
        order = torch.tensor(kept, device=device)
        memory.reorder(order)
        rows = rows.rows(order).with_token(tokens)
        scores = torch.tensor([[score for score, _, _ in run] for run in chosen], device=device)
        active = active[torch.tensor(going, device=device)]
    return [search.finished for search in searches]


def _begun(speak: Speak) -> Remembering:
    """The memory of what speaks, empty."""
    memory = speak if isinstance(speak, Remembering) else Remembering(speak, ())
    memory.forget()
    return memory


class _Search:
    """The hypotheses of one text.

    Attributes:
        finished: Those that ended, or were running when the length ran out; best first.
    """

    def __init__(self, options: SearchOptions) -> None:
        self.finished: list[Hypothesis] = []
        self._options = options
        self._texts: list[tuple[int, ...]] = [()] * options.beams

    def step(
        self, ranked: list[tuple[float, int, int]], length: int
    ) -> tuple[list[tuple[float, int, int]], bool]:
        """Take (score, row, token), best first; give those that run on, and whether it is over."""
        options = self._options
        beams, power = options.beams, length**options.length_penalty
        running: list[tuple[float, int, int]] = []
        for place, (score, row, token) in enumerate(ranked):
            if token in options.ends or length == options.max_new_tokens:
                if place < beams and score > -torch.inf:
                    found = Hypothesis(score / power, (*self._texts[row], token))
                    self.finished = _best([*self.finished, found], beams)
            elif len(running) < beams:
                running.append((score, row, token))
        if not running:
            return [], True
        # in a tiny vocabulary: rows that cannot win keep the number of rows
        running += [(-torch.inf, *running[-1][1:])] * (beams - len(running))
        self._texts = [(*self._texts[row], token) for _, row, token in running]
        full = len(self.finished) >= beams
        return running, full and running[0][0] / power <= self.finished[-1].score


def _best(found: list[Hypothesis], count: int) -> list[Hypothesis]:
    return sorted(found, key=lambda one: -one.score)[:count]


def sample(
    speak: Speak,
    beginning: Beginning,
    options: SearchOptions,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[tuple[int, ...]]:
    """One continuation of every text drawn token by token, with the token that ends it.

    Draws are made on the host, so that they are the same on every device.
    """
    texts: list[tuple[int, ...]] = [()] * len(beginning.tokens)
    active = list(range(len(texts)))
    rows = beginning
    memory = _begun(speak)
    for _ in range(options.max_new_tokens):
        with torch.no_grad():
            shares = torch.softmax(rows.next_logits(speak).float() / temperature, -1).cpu()
        drawn = torch.multinomial(shares, 1, generator=generator)[:, 0]
        for text, token in zip(active, drawn.tolist(), strict=True):
            texts[text] = (*texts[text], token)
        going = [n for n, token in enumerate(drawn.tolist()) if token not in options.ends]
        if not going:
            break
        device = rows.tokens.device
        order = torch.tensor(going, device=device)
        memory.reorder(order)
        rows = rows.rows(order).with_token(drawn[going].to(device))
        active = [active[n] for n in going]
    return texts
