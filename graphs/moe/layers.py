"""What a graph says of its layers of experts, before they are lowered and after."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import onnx_ir as ir

from graphs.moe.blocks import ExpertBlock
from graphs.moe.experts import ready_blocks
from graphs.moe.routing import dispatcher_of
from graphs.moe.slabs import slab_of

__all__ = ["ExpertLayer", "layer_of", "layers_of", "record", "recorded"]

_KEY = "toolkit.experts"


@dataclass(frozen=True)
class ExpertLayer:
    """A layer of experts.

    Attributes:
        name: Of the last node of its experts, or what stood there.
        experts: E.
        top_k: How many of them a token goes to; 0 where the graph does not say.
        hidden: The width of what they read.
        parameters: Elements of the weights of all experts.
        routing: The operator of gating and what it was told, or why there is none.
        lowering: The pass that lowered it; ``none`` as exported.
        dtype: Of the weights.
        bytes: Of the weights of all experts.
        ids: Name of the value that holds the experts of every token, [T, k].
    """

    name: str
    experts: int
    top_k: int
    hidden: int
    parameters: int
    routing: str
    lowering: str
    dtype: str
    bytes: int
    ids: str = ""

    @property
    def active(self) -> int:
        """Elements of the weights that one token is multiplied by."""
        return self.parameters * self.top_k // self.experts


def layers_of(model: ir.Model) -> tuple[ExpertLayer, ...]:
    """The layers of experts of a model in memory: lowered ones, then others in graph order."""
    blocks, _ = ready_blocks(model.graph)
    return (*recorded(model), *(layer_of(block, "none") for block in blocks))


def layer_of(block: ExpertBlock, lowering: str) -> ExpertLayer:
    """What a block is."""
    slabs = [slab_of(v) for node in block.linears for v in node.inputs[2:] if v is not None]
    tensors = [slab.value for slab in slabs if slab is not None]
    sizes = [
        math.prod(dim for dim in value.shape or () if isinstance(dim, int)) for value in tensors
    ]
    dtype = tensors[0].dtype
    assert dtype is not None
    width = 0 if block.x.shape is None else block.x.shape[1]
    return ExpertLayer(
        name=block.name,
        experts=block.num_experts,
        top_k=block.top_k or 0,
        hidden=width if isinstance(width, int) else 0,
        parameters=sum(sizes),
        routing=_routing(block),
        lowering=lowering,
        dtype=dtype.name.lower(),
        bytes=int(sum(sizes) * dtype.itemsize),
        ids=str(block.ids.name),
    )


def record(model: ir.Model, layers: Sequence[ExpertLayer]) -> None:
    """Keep what layers were, for a graph in which only what they became can be seen."""
    every = [*recorded(model), *layers]
    model.metadata_props[_KEY] = json.dumps([asdict(layer) for layer in every])


def recorded(model: ir.Model) -> tuple[ExpertLayer, ...]:
    """The layers that were lowered, as ``record`` kept them."""
    text = model.metadata_props.get(_KEY)
    return () if text is None else tuple(ExpertLayer(**each) for each in json.loads(text))


def _routing(block: ExpertBlock) -> str:
    node = dispatcher_of(block.ids)
    if node is None or node.op_type == "ExpertDispatch":
        return "of its own"
    said = {
        name: attribute.value
        for name, attribute in node.attributes.items()
        if name not in {"num_experts", "k", "plugin_version", "plugin_namespace"}
    }
    parts = [f"{name} {value:g}" for name, value in said.items() if isinstance(value, int | float)]
    return f"{node.op_type}: " + ", ".join(parts)
