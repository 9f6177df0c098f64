"""The architectures that mixtures are written as: what tensors are called, and ``config.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import MergeError
from toolkit.merge.models import Model
from toolkit.merge.moe.config import MoeConfig

__all__ = [
    "FAMILIES",
    "FEED_FORWARD",
    "Family",
    "check_window",
    "choose",
    "full_config",
    "moe_config",
]

# A matrix of a dense layer's gated feed-forward network; groups: layer, which of the three.
FEED_FORWARD = re.compile(r"^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$")
_COMMON = r"input_layernorm\.weight|post_attention_layernorm\.weight|self_attn\.[qkvo]_proj\.weight"


@dataclass(frozen=True)
class Family:
    """An architecture of transformers with sparse layers.

    Attributes:
        name: Its ``model_type``.
        architecture: Its class.
        bases: The dense ``model_type``s whose layers it can hold, those it is the default of first.
        own: How many of ``bases`` it is the default of.
        block: What stands between a layer and its experts.
        matrices: What an expert calls ``gate``, ``up`` and ``down``.
        inside: Pattern of the layer's tensors beside those every family has.
        biased: Whether queries, keys and values have a bias; zeros stand in for missing ones.
        shared: Whether each layer has an expert that sees every token.
    """

    name: str
    architecture: str
    bases: tuple[str, ...]
    own: int
    block: str
    matrices: Mapping[str, str]
    inside: str = "(?!)"
    biased: bool = False
    shared: bool = False

    def takes(self, name: str) -> bool:
        """Whether a dense model's tensor, the feed-forward ones aside, has a place."""
        if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            return True
        pattern = rf"model\.layers\.\d+\.({_COMMON}|{self.inside})"
        return re.fullmatch(pattern, name) is not None

    def expert(self, layer: str, expert: int, matrix: str) -> str:
        """The name of one matrix of one expert."""
        place = f"model.layers.{layer}.{self.block}.experts.{expert}"
        return f"{place}.{self.matrices[matrix]}.weight"


_PLAIN = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "mixtral", "MixtralForCausalLM", ("llama", "mistral"), 2, "block_sparse_moe",
            {"gate": "w1", "up": "w3", "down": "w2"},
        ),
        Family(
            "qwen2_moe", "Qwen2MoeForCausalLM", ("qwen2", "llama", "mistral"), 1, "mlp", _PLAIN,
            r"self_attn\.[qkv]_proj\.bias", biased=True, shared=True,
        ),
        Family(
            "qwen3_moe", "Qwen3MoeForCausalLM", ("qwen3",), 1, "mlp", _PLAIN,
            r"self_attn\.[qk]_norm\.weight|self_attn\.[qkvo]_proj\.bias",
        ),
    )
}  # fmt: skip
# (dense type, architecture) that agree on sliding windows.
_WINDOWED = (("mistral", "mixtral"), ("qwen2", "qwen2_moe"))
# Keys that older readers look for, and transformers' own configuration has under another name.
_LEGACY = ("rope_theta", "rope_scaling", "torch_dtype")


def choose(config: MoeConfig, base: Model) -> Family:
    """The architecture asked for, or the one of the base's family.

    A Llama with a shared expert is written as Qwen2-MoE, which has one.

    Raises:
        MergeError: If the base's layers do not fit into it.
    """
    kind = str(base.config.get("model_type", "unnamed"))
    named = config.architecture
    if named is None:
        fitting = [f for f in FAMILIES.values() if kind in f.bases]
        fitting = [f for f in fitting if f.shared or not config.shared_experts]
        fitting.sort(key=lambda family: family.bases.index(kind) >= family.own)
        if not fitting:
            extra = " with shared_experts" if config.shared_experts else ""
            raise MergeError(
                f"{base.label} is of type {kind!r}, and no architecture is known here that holds "
                f"its layers as experts{extra}",
                hint=_known(),
            )
        return fitting[0]
    family = FAMILIES[named]
    if kind not in family.bases:
        raise MergeError(
            f"architecture is {named}, which holds layers of {', '.join(family.bases)}, and "
            f"{base.label} is of type {kind!r}",
            hint=_known(),
        )
    if config.shared_experts and not family.shared:
        raise MergeError(
            f"architecture is {named}, which has no shared expert, and shared_experts is given",
            hint="give the model as one of experts, or architecture: qwen2_moe",
        )
    return family


def _known() -> str:
    return "; ".join(f"{f.name} of {', '.join(f.bases)}" for f in FAMILIES.values())


def full_config(base: Model) -> dict[str, Any]:
    """The base's configuration with every default of its type written out.

    Raises:
        MergeError: If the base is a single file, which has none.
        CheckpointError: If transformers cannot read it.
    """
    if base.folder is None or not base.config:
        raise MergeError(
            f"{base.label} has no config.json, and a mixture needs its base's",
            hint="give the folder of a Hugging Face model as base_model",
        )
    from toolkit.sources import HuggingFaceSource  # noqa: PLC0415  (torch and transformers)

    full: dict[str, Any] = HuggingFaceSource(base.label, base.folder, "causal-lm").config.to_dict()
    return full


def check_window(full: Mapping[str, Any], family: Family) -> None:
    """Refuse a base whose attention looks back only so far where the architecture cannot.

    Raises:
        MergeError: If it does.
    """
    window, kind = full.get("sliding_window"), full["model_type"]
    held = (kind, family.name) in _WINDOWED
    if window and full.get("use_sliding_window", True) and not held:
        raise MergeError(
            f"the base's attention reaches back {window} tokens (sliding_window), and "
            f"{family.name} made of {kind} has no such limit",
            hint="if its texts are never longer, set sliding_window to null in its config.json",
        )


def moe_config(
    full: Mapping[str, Any], raw: Mapping[str, Any], family: Family, config: MoeConfig, shared: int
) -> dict[str, Any]:
    """``config.json`` of the mixture.

    Args:
        full: The base's configuration, defaults included.
        raw: The base's ``config.json``, whose older spellings are kept beside the new ones.
        family: The architecture.
        config: The mixture.
        shared: Width of the shared expert.
    """
    from transformers import AutoConfig  # noqa: PLC0415  (slow to import)

    known = AutoConfig.for_model(family.name).to_dict()
    # head_dim is read wherever it is given, and not every configuration lists it.
    own = (set(known) | {"head_dim"}) - {"model_type"}
    kept = {key: value for key, value in full.items() if key in own}
    count = len(config.experts)
    kept |= {
        "architectures": [family.architecture],
        "num_experts_per_tok": config.experts_per_token,
        "num_local_experts" if family.name == "mixtral" else "num_experts": count,
    }
    if family.name != "mixtral":
        width = full["intermediate_size"]
        kept |= {"moe_intermediate_size": width, "norm_topk_prob": True, "decoder_sparse_step": 1}
        kept |= {"mlp_only_layers": []}
    if family.shared:
        kept["shared_expert_intermediate_size"] = shared
    result: dict[str, Any] = AutoConfig.for_model(family.name, **kept).to_diff_dict()
    if family.name == "qwen3_moe":
        # transformers 5 writes num_local_experts; 4 and inference servers read num_experts.
        result["num_experts"] = count
    return result | {key: raw[key] for key in _LEGACY if key in raw}
