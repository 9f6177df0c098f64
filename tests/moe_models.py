"""Tiny random Mixture-of-Experts models of every architecture that is exported, by name.

``tiny(name)`` gives the model in memory, ``write_tiny(folder, name)`` its folder and
``export_tiny(folder, name)`` its graph with caches; the fixture ``moe_graph`` keeps one of each for
a whole run. Weights are larger than transformers initialises them, so that what experts add is far
above rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.artifacts import DimRange, OnnxModel
from toolkit.export import ExportOptions, export_source
from toolkit.feeds.caches import caches_of
from toolkit.sources import HuggingFaceSource

__all__ = [
    "CAUSAL",
    "ENCODER_DECODERS",
    "MORE",
    "SHAPES",
    "VOCABULARY",
    "decode",
    "export_tiny",
    "tiny",
    "write_tiny",
]

SHAPES = {
    "batch": DimRange(1, 2, 16),
    "sequence": DimRange(1, 7, 128),
    "past_sequence": DimRange(0, 4, 32),
}

VOCABULARY = 97

_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 160,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": 4,
}
_DEEPSEEK = {
    **_LATENT,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.5,
}

# Name: transformers' prefix of the classes, and what the configuration says besides _COMMON.
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            "num_experts": 6,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "decoder_sparse_step": 1,
        },
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "head_dim": 8,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": ("Olmoe", {"num_experts": 8}),
    "phimoe": ("Phimoe", {"num_local_experts": 4}),
    "deepseek_v2": ("DeepseekV2", {**_DEEPSEEK, "topk_method": "group_limited_greedy"}),
    "deepseek_v3": ("DeepseekV3", _DEEPSEEK),
    "gpt_oss": ("GptOss", {"num_local_experts": 4, "head_dim": 8, "sliding_window": 4}),
    "granitemoe": ("GraniteMoe", {"num_local_experts": 4}),
    "jetmoe": ("JetMoe", {"num_local_experts": 4, "kv_channels": 8}),
}
# More that use the same interface, or have a stand-in; one of them is enough to test a kind.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama4_text": (
        "Llama4",
        {
            "num_local_experts": 4,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "interleave_moe_layer_step": 1,
        },
    ),
    "ernie4_5_moe": (
        "Ernie4_5_Moe",
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 24,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 0,
            "moe_layer_end_index": -1,
        },
    ),
    "glm4_moe": (
        "Glm4Moe",
        {**_DEEPSEEK, "head_dim": 8, "num_key_value_heads": 2, "kv_lora_rank": None},
    ),
    "hunyuan_v1_moe": ("HunYuanMoEV1", {"num_experts": 4, "moe_topk": [2, 2], "head_dim": 8}),
    "minimax_m2": ("MiniMaxM2", {"num_local_experts": 4, "head_dim": 8, "rotary_dim": 4}),
    "minimax": (
        "MiniMax",
        {
            "num_local_experts": 4,
            "head_dim": 8,
            "layer_types": ["full_attention", "full_attention"],
        },
    ),
    "dots1": (
        "Dots1",
        {**_DEEPSEEK, "head_dim": 8, "num_key_value_heads": 2, "kv_lora_rank": None},
    ),
    "flex_olmo": ("FlexOlmo", {"num_experts": 4}),
    "granitemoeshared": (
        "GraniteMoeShared",
        {"num_local_experts": 4, "shared_intermediate_size": 24},
    ),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        {
            "num_local_experts": 4,
            "shared_intermediate_size": 24,
            "layer_types": ["attention", "attention"],
            "position_embedding_type": "rope",
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
        },
    ),
    "solar_open": (
        "SolarOpen",
        {"n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 24, "head_dim": 8},
    ),
    "afmoe": (
        "Afmoe",
        {
            "num_experts": 4,
            "num_dense_layers": 1,
            "num_shared_experts": 1,
            "moe_intermediate_size": 24,
            "head_dim": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "cohere2_moe": ("Cohere2Moe", {"num_experts": 4, "head_dim": 8}),
    "glm4_moe_lite": ("Glm4MoeLite", {**_DEEPSEEK, "mlp_layer_types": ["dense", "sparse"]}),
    "exaone_moe": (
        "ExaoneMoe",
        {
            "num_experts": 4,
            "num_shared_experts": 1,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 0,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "mlp_layer_types": ["sparse", "sparse"],
        },
    ),
    "mimo_v2_flash": (
        "MiMoV2Flash",
        {
            "n_routed_experts": 4,
            "moe_intermediate_size": 24,
            "head_dim": 8,
            "v_head_dim": 8,
            "layer_types": ["full_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse"],
        },
    ),
    "lfm2_moe": (
        "Lfm2Moe",
        {
            "num_experts": 4,
            "num_dense_layers": 1,
            "moe_intermediate_size": 24,
            "layer_types": ["full_attention", "full_attention"],
        },
    ),
    "jamba": (
        "Jamba",
        {
            "num_experts": 4,
            "expert_layer_period": 1,
            "expert_layer_offset": 0,
            "attn_layer_period": 1,
            "attn_layer_offset": 0,
        },
    ),
    "qwen3_next": (
        "Qwen3Next",
        {
            "num_experts": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "head_dim": 8,
            "layer_types": ["full_attention", "full_attention"],
            "decoder_sparse_step": 1,
        },
    ),
    "dbrx": ("Dbrx", {}),
}
ENCODER_DECODERS = ("switch_transformers", "nllb_moe")


def tiny(name: str, seed: int = 0, **changes: Any) -> Any:
    """A model of two layers in evaluation mode, its weights drawn from ``seed``."""
    import transformers as hf

    hf.utils.logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = (
        _causal(hf, name, changes)
        if name not in ENCODER_DECODERS
        else _encoder_decoder(hf, name, changes)
    )
    with torch.no_grad():
        for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "correction_bias" in path:
                tensor.copy_(0.3 * torch.randn_like(tensor))
            elif tensor.ndim > 1:
                tensor.copy_(0.6 * torch.randn_like(tensor) / tensor.shape[-1] ** 0.5)
            elif "bias" in path:
                tensor.copy_(0.1 * torch.randn_like(tensor))
    model.set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.eval()


def write_tiny(folder: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """The same as a checkpoint folder."""
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    tiny(name, seed, **changes).save_pretrained(folder)
    return folder


def export_tiny(folder: Path, name: str, seed: int = 0) -> OnnxModel:
    """A causal model exported with caches, for ``SHAPES``; the checkpoint lies beside it."""
    source = HuggingFaceSource(name, write_tiny(folder / name, name, seed), cache=True)
    return export_source(source, SHAPES, ExportOptions(), folder / f"{name}.onnx")


def decode(run: Any, model: OnnxModel, ids: np.ndarray, steps: int) -> np.ndarray:
    """Logits [batch, sequence, V] of ids whose last ``steps`` are given one by one."""
    caches = caches_of(model.inputs, [spec.name for spec in model.outputs])
    assert caches is not None
    past, found, prompt = caches.empty(len(ids)), [], ids.shape[1] - steps
    for new in np.split(ids, range(prompt, ids.shape[1]), axis=1):
        outputs = run(caches.feeds(new, past, {}))
        past = {name: outputs[name.replace("past_key_values", "present")] for name in past}
        found.append(outputs["logits"])
    return np.concatenate(found, axis=1)


def _causal(hf: Any, name: str, changes: dict[str, Any]) -> Any:
    prefix, own = {**CAUSAL, **MORE}[name]
    if name == "llama4_text":
        return hf.Llama4ForCausalLM(hf.Llama4TextConfig(**{**_COMMON, **own, **changes}))
    if name == "dbrx":
        return hf.DbrxForCausalLM(
            hf.DbrxConfig(
                d_model=32,
                n_heads=4,
                n_layers=2,
                max_seq_len=160,
                vocab_size=97,
                attn_config={"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 1e4},
                ffn_config={
                    "ffn_hidden_size": 24,
                    "moe_num_experts": 4,
                    "moe_top_k": 2,
                    "hidden_size": 32,
                },
            )
        )
    config = getattr(hf, prefix + "Config")(**{**_COMMON, **own, **changes})
    return getattr(hf, prefix + "ForCausalLM")(config)


def _encoder_decoder(hf: Any, name: str, changes: dict[str, Any]) -> Any:
    if name == "switch_transformers":
        config = hf.SwitchTransformersConfig(
            **{
                "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2,
                "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_heads": 4,
                "num_experts": 4, "expert_capacity": 4, "vocab_size": VOCABULARY, **changes,
            }
        )  # fmt: skip
        return hf.SwitchTransformersForConditionalGeneration(config)
    config = hf.NllbMoeConfig(
        **{
            "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2,
            "vocab_size": VOCABULARY, "max_position_embeddings": 160, **changes,
        }
    )  # fmt: skip
    return hf.NllbMoeForConditionalGeneration(config)
