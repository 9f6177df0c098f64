"""How tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import RecipeError

__all__ = ["GenerationSettings"]


@dataclass(frozen=True)
class GenerationSettings:
    """How tokens are chosen, and when to stop.

    Attributes:
        max_new_tokens: Most tokens after the prompt.
        temperature: Logits are divided by it before sampling; 0 takes the most probable token.
        top_k: Sample among this many most probable tokens (Fan et al. 2018); 0 for all.
        top_p: Sample among the fewest tokens that have this much probability together (Holtzman
            et al. 2020); 1 for all.
        seed: Of the sampling; the same seed gives the same text.
        beams: Hypotheses kept by beam search; 1 for none.
        length_penalty: A finished hypothesis is scored by its log probability over its length to
            this power.

    Raises:
        RecipeError: If a number is out of its range, or beams are to be sampled.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        wanted = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature >= 0, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "beams": (self.beams >= 1, "at least 1"),
        }
        for name, (right, text) in wanted.items():
            if not right:
                raise RecipeError(f"{name} is {getattr(self, name):g}, wanted {text}")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise RecipeError(
                "found top_k or top_p with a temperature of 0, which samples nothing",
                hint="give a temperature, for example 1",
            )
        if self.temperature > 0 and self.beams > 1:
            raise RecipeError(
                f"{self.beams} beams with a temperature, wanted one of them",
                hint="beam search looks for the most probable text and samples nothing",
            )
