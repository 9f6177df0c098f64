"""What a graph can hold: prompts are checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.errors import RecipeError
from toolkit.generation.settings import GenerationSettings

__all__ = ["Room"]


@dataclass(frozen=True)
class Room:
    """The largest sizes of a graph's dimensions, or of two graphs'.

    Attributes:
        vocabulary: How many token ids there are; None where the graph does not say.
        rows: Most prompts or beams.
        read: Most tokens of a prompt.
        length: What the recipe calls that dimension.
        new: Most tokens in one step of the decoder.
        cached: Most positions in its cache.
    """

    vocabulary: float | None
    rows: int
    read: int
    length: str
    new: int
    cached: int

    def check(self, number: int, prompt: Sequence[int], settings: GenerationSettings) -> None:
        """Whether prompt ``number`` can be read, and its beams run.

        Raises:
            RecipeError: If it is empty, too long, one too many, or has tokens nobody knows.
        """
        if not prompt:
            raise RecipeError(f"prompt {number + 1} is empty", hint="give at least one token")
        unknown = [t for t in prompt if t < 0 or (self.vocabulary and t >= self.vocabulary)]
        if unknown:
            raise RecipeError(
                f"prompt {number + 1} has token {unknown[0]}, and the model knows 0 to"
                f" {int(self.vocabulary or 0) - 1}"
            )
        if number >= self.rows or settings.beams > self.rows:
            raise RecipeError(
                f"{max(number + 1, settings.beams)} rows, and the graph takes up to {self.rows}",
                hint="fewer prompts or beams, or a larger batch in the recipe's shapes",
            )
        if len(prompt) > self.read:
            raise RecipeError(
                f"prompt {number + 1} has {len(prompt)} tokens, and the graph takes up to"
                f" {self.read}",
                hint=f"a larger {self.length} in the recipe's shapes",
            )

    def check_start(self, start: int, settings: GenerationSettings) -> None:
        """Whether ``start`` tokens, with which the decoder begins, leave room for the new ones.

        Raises:
            RecipeError: If not.
        """
        if start > self.new:
            raise RecipeError(
                f"decoding starts with {start} tokens, and the graph takes up to {self.new}",
                hint="a larger sequence in the recipe's shapes",
            )
        needed = start + settings.max_new_tokens - 2
        if needed > self.cached:
            raise RecipeError(
                f"{start} tokens and {settings.max_new_tokens} more need a cache of {needed}"
                f" positions, and the graph's ends at {self.cached}",
                hint="fewer --max-new-tokens, or a larger past_sequence in the recipe's shapes",
            )
