"""Output heads that share their weight with the input embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.merge.models import Model

__all__ = ["Ties", "find_ties"]

_HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")
_EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight",
    "shared.weight",
)  # fmt: skip


@dataclass(frozen=True)
class Ties:
    """What is tied in all models, and in which only.

    Attributes:
        head: The head's name, if the models have one.
        embedding: The name of the embedding it may be tied to.
        everywhere: Whether every model ties them.
        somewhere: Whether some model does.
    """

    head: str = ""
    embedding: str = ""
    everywhere: bool = False
    somewhere: bool = False

    def follows(self, name: str) -> bool:
        """Whether a tensor is not written because it is the embedding under another name."""
        return self.everywhere and name == self.head

    def find(self, model: Model, name: str) -> str | None:
        """The name under which a model has a tensor; its embedding stands in for a tied head."""
        if name in model.tensors:
            return name
        if name == self.head and self.embedding in model.tensors:
            return self.embedding
        return None


def find_ties(models: Sequence[Model]) -> Ties:
    """Look for a head and an embedding of the same shape.

    A model ties them if its config says so or if it has no head of its own.
    """
    names = dict.fromkeys(name for model in models for name in model.tensors)
    head = next((n for n in names if n.endswith(_HEADS)), "")
    embedding = next((n for n in names if n.endswith(_EMBEDDINGS) and "encoder" not in n), "")
    if not head or not embedding:
        return Ties()
    tied = [_tied(model, head) for model in models]
    return Ties(head, embedding, all(tied), any(tied))


def _tied(model: Model, head: str) -> bool:
    text = model.config.get("text_config")
    places = [model.config, *([text] if isinstance(text, dict) else [])]
    return head not in model.tensors or any(p.get("tie_word_embeddings") is True for p in places)
