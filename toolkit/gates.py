"""Gates and a combiner that need no code of one's own: ``toolkit fit-gate`` trains them.

A recipe names them as factories, ``toolkit.gates:features`` and so on, without ``--allow-code``.
A gate starts at the constant weights that were fitted to the same data, and gives scores whose
softmax (or softplus) are the weights. The combiner is the last stage of a stack.
"""

from __future__ import annotations

import inspect
import math

import torch
from torch import nn

from toolkit.errors import RecipeError

__all__ = [
    "Combiner",
    "Features",
    "LastToken",
    "Tokens",
    "combiner",
    "features",
    "last_token",
    "tokens",
]

# Below it a member's log probability says no more: a class it excludes has -inf.
_LEAST_LOG = -100.0


class _Gate(nn.Module):
    """What all have in common: a linear layer at the end."""

    head: nn.Linear

    def start_at(self, scores: torch.Tensor) -> None:
        """Give ``scores`` [members] whatever the input is."""
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(scores)


class Features(_Gate):
    """Scores [batch, members] from one array of features."""

    def __init__(self, inputs: int, members: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh()) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or inputs, members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [batch, ...] with ``inputs`` numbers in each row."""
        scores: torch.Tensor = self.head(self.body(x.flatten(1)))
        return scores


class Tokens(_Gate):
    """Scores [batch, sequence, members] from a token and the mean of those before it."""

    def __init__(self, vocabulary: int, members: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(2 * width, members)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Both int64 [batch, sequence]; a position sees itself and what stands left of it."""
        token = self.embedding(input_ids)
        mask = attention_mask.unsqueeze(-1).to(token.dtype)
        seen = (token * mask).cumsum(dim=1) / mask.cumsum(dim=1).clamp(min=1.0)
        scores: torch.Tensor = self.head(torch.cat([token, seen], dim=-1))
        return scores


class LastToken(_Gate):
    """Scores [batch, sequence, members] from each token alone, so that no cache is needed."""

    def __init__(self, vocabulary: int, members: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, members)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``input_ids`` int64 [batch, sequence]."""
        scores: torch.Tensor = self.head(self.embedding(input_ids))
        return scores


def features(inputs: int, members: int, hidden: int = 0) -> Features:
    """A linear gate over the features ``x``, or one with a hidden layer of that width."""
    return Features(inputs, members, hidden)


def tokens(vocabulary: int, members: int, width: int = 32) -> Tokens:
    """A gate for texts: every position has its own weights."""
    return Tokens(vocabulary, members, width)


def last_token(vocabulary: int, members: int, width: int = 32) -> LastToken:
    """A gate for texts that are decoded with a cache: the weights depend on the last token."""
    return LastToken(vocabulary, members, width)


class Combiner(nn.Module):
    """Logits [..., classes] from members' logits: stacked generalisation (Wolpert 1992).

    Multinomial logistic regression on the members' log probabilities, as they stand side by side;
    with ``hidden`` units a layer beside it sees the same. It starts at the uniform product of the
    members, which a fit then changes. Log probabilities are taken relative to 1 / classes: a member
    that knows nothing says 0, and steps of the fit do not move all logits at once.
    """

    def __init__(self, members: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.head = nn.Linear(members * classes, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(classes).repeat(1, members) / members)
            self.head.bias.zero_()
        self.body = self.tail = None
        if hidden:
            self.body = nn.Linear(members * classes, hidden)
            self.tail = nn.Linear(hidden, classes, bias=False)
            nn.init.zeros_(self.tail.weight)

    def combined(self, members: list[torch.Tensor]) -> torch.Tensor:
        """``members`` each [..., classes]: logits, or log probabilities."""
        logs = [torch.log_softmax(one, -1).clamp(min=_LEAST_LOG) for one in members]
        said = torch.cat(logs, -1) + math.log(self.head.out_features)
        logits: torch.Tensor = self.head(said)
        if self.body is not None and self.tail is not None:
            logits = logits + self.tail(torch.tanh(self.body(said)))
        return logits


def combiner(logits: str, classes: int, hidden: int = 0) -> Combiner:
    """A combiner whose inputs have the names in ``logits``, with commas between them.

    Raises:
        RecipeError: If the names cannot be those of parameters.
    """
    names = [name.strip() for name in logits.split(",")]
    for name in names:
        if not name.isidentifier() or name == "self" or names.count(name) > 1:
            raise RecipeError(
                f"the combiner's logits are {logits!r}, and {name!r} is no name of an input",
                hint="kwargs: {logits: 'a_logits, b_logits', classes: 10}; each once, of letters, "
                "digits and '_'",
            )

    def forward(self: Combiner, **given: torch.Tensor) -> torch.Tensor:
        return self.combined([given[name] for name in names])

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken = [inspect.Parameter(name, kind) for name in ("self", *names)]
    # A recipe joins inputs with parameters by name, so each combiner says its own.
    forward.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    named = type("Combiner", (Combiner,), {"forward": forward, "__module__": __name__})
    made: Combiner = named(len(names), classes, hidden)
    return made
