"""One sparse layer in every lowering, for measuring, and what no runtime can go below."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.members import Member
from graphs import ExpertLayer, FindGating, expert_layers, rewrite
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.pipeline.experts import LOWERINGS
from toolkit.sources import FactorySource

__all__ = ["Floor", "LayerGraphs", "Sizes", "eager_peer", "run_peer"]


@dataclass(frozen=True)
class Sizes:
    """A layer of gated experts without biases: E experts, k per token, widths H and I."""

    experts: int
    top_k: int
    hidden: int
    inner: int

    def __str__(self) -> str:
        return f"E={self.experts} k={self.top_k} H={self.hidden} I={self.inner}"

    @property
    def factory(self) -> Member:
        """``benchmarks.models:sparse_layer`` of these sizes."""
        kwargs = {
            "width": self.hidden,
            "hidden": self.inner,
            "experts": self.experts,
            "k": self.top_k,
        }
        return Member("benchmarks.models:sparse_layer", kwargs)


class LayerGraphs:
    """The exported graph of a layer and its lowerings, as ONNX Runtime sessions."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        """Export and lower; weights are seeded."""
        folder.mkdir()
        self.sizes, self.folder = sizes, folder
        weights, exported = folder / "layer.safetensors", folder / "exported.onnx"
        member = sizes.factory
        member.write(weights, 0)
        spec = TensorSpec.parse("x", f"float32[tokens, {sizes.hidden}]")
        source = FactorySource("layer", member.factory, weights, (spec,), kwargs=member.kwargs)
        self.exported = folder / "found.onnx"
        export_source(source, {"tokens": DimRange(1, 8, 1024)}, ExportOptions(), exported)
        rewrite(exported, [FindGating()], self.exported, required=[FindGating.name])
        exported.unlink()
        weights.unlink()

    @property
    def layer(self) -> ExpertLayer:
        """The one layer."""
        (found,) = expert_layers(self.exported)
        return found

    def path(self, lowering: str) -> Path:
        """The graph in a lowering, written on first use."""
        out = self.folder / f"{lowering}.onnx"
        if not out.exists():
            step = LOWERINGS[lowering]()
            rewrite(self.exported, [step], out, required=[step.name])
        return out

    def call(self, lowering: str, x: np.ndarray) -> Callable[[], object]:
        """A run of a lowering on rows [T, H]."""
        options = onnxruntime.SessionOptions()
        # Threads that spin after one session's run would take time from the next session's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            self.path(lowering), options, providers=["CPUExecutionProvider"]
        )
        return partial(session.run, None, {"x": x})


@dataclass(frozen=True)
class Floor:
    """What a layer takes at the least on this machine.

    Attributes:
        flops: Of a large product of matrices in float32, per second.
        bandwidth: Bytes read from memory per second.
    """

    flops: float
    bandwidth: float

    @classmethod
    def measured(cls) -> Floor:
        """With all cores: the best of a few products of 1,536 squared, and sums of 512 MiB."""
        side, large = 1536, torch.ones(1 << 27)
        a, b = torch.randn(side, side), torch.randn(side, side)
        product = min(_seconds(lambda: torch.mm(a, b)) for _ in range(8))
        read = min(_seconds(large.sum) for _ in range(8))
        return cls(2 * side**3 / product, large.numel() * 4 / read)

    def seconds(self, sizes: Sizes, tokens: int) -> float:
        """The larger of arithmetic and of reading the weights of the experts that are chosen.

        Of E experts, T tokens that choose k each at random leave (1 - k/E)^T unchosen.
        """
        flops = 6 * tokens * sizes.top_k * sizes.hidden * sizes.inner
        chosen = sizes.experts * (1 - (1 - sizes.top_k / sizes.experts) ** tokens)
        touched = 3 * 4 * sizes.hidden * sizes.inner * chosen
        return max(flops / self.flops, touched / self.bandwidth)


def eager_peer(sizes: Sizes) -> nn.Module:
    """Mixtral's layer in transformers, of the same sizes, experts run one by one (``eager``)."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import (
        MixtralSparseMoeBlock,
    )

    config = MixtralConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.inner,
        num_local_experts=sizes.experts,
        num_experts_per_tok=sizes.top_k,
    )
    config._experts_implementation = "eager"
    block = MixtralSparseMoeBlock(config).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=1 / math.sqrt(parameter.shape[-1]))
    return block


def run_peer(block: nn.Module, x: np.ndarray) -> Callable[[], object]:
    """A run of the peer on rows [T, H]."""
    batch = torch.from_numpy(x)[None]

    def call() -> object:
        with torch.inference_mode():
            return block(batch)

    return call


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
