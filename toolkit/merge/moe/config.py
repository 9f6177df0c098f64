"""mergekit-moe's configuration grammar, validated: every key is known or an error."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from toolkit.errors import MergeError
from toolkit.merge.config import Part, told

__all__ = ["PROMPT_MODES", "ExpertSource", "MoeConfig", "from_mapping", "is_moe"]

PROMPT_MODES = ("hidden", "hidden_last", "hidden_avg", "cheap_embed")
# What mergekit calls the architectures it writes, beside transformers' names.
_ALIASES = {"qwen": "qwen2_moe", "qwen_moe": "qwen2_moe", "qwen3": "qwen3_moe"}

Noise = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, Field(allow_inf_nan=False)]


class ExpertSource(Part):
    """A model whose feed-forward layers become one expert in every layer."""

    source_model: str
    positive_prompts: list[str] | None = None
    negative_prompts: list[str] | None = None
    noise_scale: Noise | None = None
    residual_scale: Factor | None = None

    @property
    def prompts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Positive and negative prompts."""
        return tuple(self.positive_prompts or ()), tuple(self.negative_prompts or ())


class MoeConfig(Part):
    """A mixture: mergekit-moe's keys, and ``gate_state``.

    Attributes:
        gate_mode: ``hidden`` and ``hidden_last`` take the last token of each prompt, ``hidden_avg``
            the mean of its tokens, ``cheap_embed`` the sum of their embeddings; ``random`` draws
            from a normal distribution, ``uniform_random`` as ``torch.nn.Linear`` does.
        gate_state: Which states prompts are compared in: those that the router will see, or, as
            mergekit does, those that enter the layer.
    """

    base_model: str
    experts: list[ExpertSource] = Field(min_length=1)
    gate_mode: Literal[
        "hidden", "hidden_last", "hidden_avg", "cheap_embed", "random", "uniform_random"
    ] = "hidden"
    gate_state: Literal["router_input", "layer_input"] = "router_input"
    dtype: str | None = None
    experts_per_token: int = Field(default=2, ge=1)
    shared_experts: list[ExpertSource] | None = Field(default=None, max_length=1)
    architecture: Literal["mixtral", "qwen2_moe", "qwen3_moe"] | None = None

    @field_validator("architecture", mode="before")
    @classmethod
    def _known_by_another_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name = value.lower().replace(" ", "_")
        return _ALIASES.get(name, name)

    @model_validator(mode="after")
    def _consistent(self) -> MoeConfig:
        found = list(self._problems())
        if found:
            raise ValueError("; ".join(found))
        return self

    def _problems(self) -> Iterator[str]:
        if self.experts_per_token > len(self.experts):
            yield f"experts_per_token is {self.experts_per_token}, for {len(self.experts)} experts"
        if self.gate_mode not in PROMPT_MODES:
            return
        for n, expert in enumerate(self.experts):
            if not expert.positive_prompts:
                yield f"experts[{n}] has no positive_prompts, wanted by gate_mode {self.gate_mode}"
        for (i, one), (k, other) in itertools.combinations(enumerate(self.experts), 2):
            if one.positive_prompts and one.prompts == other.prompts:
                yield (
                    f"experts[{i}] and experts[{k}] have the same prompts, so a gate made of them "
                    "cannot tell the two apart"
                )
        for expert in self.shared_experts or ():
            if expert.negative_prompts and not expert.positive_prompts:
                yield "shared_experts[0] has negative_prompts and no positive_prompts"

    def references(self) -> list[str]:
        """Every model named, the base first."""
        experts = [*self.experts, *(self.shared_experts or ())]
        return list(dict.fromkeys([self.base_model, *(e.source_model for e in experts)]))

    def warnings(self) -> list[str]:
        """What is accepted and will hardly be meant."""
        experts = self.experts
        found = []
        if self.gate_mode not in PROMPT_MODES and any(e.positive_prompts for e in experts):
            found.append(f"gate_mode is {self.gate_mode}, so prompts are not read")
        if len({e.source_model for e in experts}) == 1 and not any(e.noise_scale for e in experts):
            found.append(
                "all experts are one model without noise: until it is trained, the mixture "
                "computes what the dense model does"
            )
        return found


def is_moe(document: Any) -> bool:
    """Whether a YAML document is a mixture rather than a merge."""
    return isinstance(document, Mapping) and "experts" in document


def from_mapping(document: Mapping[str, Any], where: str = "config") -> MoeConfig:
    """Read a document; ``where`` names it in messages.

    Raises:
        MergeError: If it breaks the grammar.
    """
    try:
        return MoeConfig.model_validate(document)
    except ValidationError as error:
        found = list(dict.fromkeys(map(told, error.errors())))
    keys = ", ".join(MoeConfig.model_fields)
    own = ", ".join(ExpertSource.model_fields)
    raise MergeError(f"{where}: {'; '.join(found)}", hint=f"keys: {keys}; of an expert: {own}")
