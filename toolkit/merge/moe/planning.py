"""From a mixture's configuration and headers to a plan; what can be refused is refused here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.methods.base import Method
from toolkit.merge.methods.linear import Linear
from toolkit.merge.models import Library, Model
from toolkit.merge.moe.config import ExpertSource, MoeConfig
from toolkit.merge.moe.families import (
    FEED_FORWARD,
    Family,
    check_window,
    choose,
    full_config,
    moe_config,
)
from toolkit.merge.moe.noise import Noisy
from toolkit.merge.outputs import FORMATS, element_format
from toolkit.merge.plan import MergePlan, OutputTensor, Source
from toolkit.merge.planning import COMPUTED
from toolkit.merge.tensors import FLOATS, STORED, ArrayTensor, HeaderOnly, Tensor, elements
from toolkit.merge.ties import find_ties

__all__ = ["make_moe_plan"]

Array = npt.NDArray[Any]

_HEAD = "lm_head.weight"
# Width of the shared expert of zeros that stands where an architecture wants one and none is given.
_ZERO_WIDTH = 128


def make_moe_plan(
    config: MoeConfig, library: Library, seed: int, rows: Array | None = None
) -> MergePlan:
    """Plan a mixture.

    Args:
        config: What to make.
        library: Opens its models.
        seed: Of noise.
        rows: Rows of the routers as ``gate_rows`` gives them; not known yet if None.

    Raises:
        MergeError: If the models do not make a mixture as asked.
        CheckpointError: If a model's files are damaged.
    """
    models = {reference: library[reference] for reference in config.references()}
    base = models[config.base_model]
    family = choose(config, base)
    full = full_config(base)
    planner = _Planner(config, models, base, family, full, seed, rows)
    planner.check()
    check_window(full, family)
    outputs = tuple(planner.outputs())
    written = _dtype_name(outputs)
    result = moe_config(full, base.config, family, config, planner.shared_width)
    for name in ("dtype", "torch_dtype"):
        if name in result or name == "dtype":
            result[name] = written
    return MergePlan(
        "moe",
        outputs,
        tuple(planner.unused(outputs)),
        base,
        models,
        result,
        tuple(config.warnings()),
    )


def _dtype_name(outputs: tuple[OutputTensor, ...]) -> str:
    """What ``config.json`` calls the format of the largest output."""
    written = max(outputs, key=lambda output: output.nbytes).dtype
    return {value: name for name, value in FORMATS.items()}[written]


@dataclass(frozen=True)
class _Planner:
    config: MoeConfig
    models: Mapping[str, Model]
    base: Model
    family: Family
    full: Mapping[str, Any]
    seed: int
    rows: Array | None

    @property
    def layers(self) -> int:
        return int(self.full["num_hidden_layers"])

    @property
    def shared_width(self) -> int:
        """Width of the shared expert, 0 without one."""
        width = int(self.full["intermediate_size"])
        if not self.family.shared:
            return 0
        return width if self.config.shared_experts else min(width, _ZERO_WIDTH)

    def check(self) -> None:
        """Refuse a base with other tensors than the architecture holds, and other experts."""
        label = self.base.label
        for name, tensor in self.base.tensors.items():
            known = FEED_FORWARD.match(name) or self.family.takes(name)
            if not known and not name.endswith(COMPUTED):
                raise MergeError(
                    f"{label} has the tensor {name!r}, for which {self.family.name} has no place"
                )
            if known and tensor.dtype not in FLOATS:
                raise MergeError(f"{label}: tensor {name!r} is {tensor.dtype}, not floating point")
        for name in self._wanted():
            if name not in self.base.tensors:
                raise MergeError(f"{label} has no tensor {name!r}, which its config.json asks for")
        for expert in (*self.config.experts, *(self.config.shared_experts or ())):
            self._check_expert(self.models[expert.source_model])

    def _wanted(self) -> Iterator[str]:
        yield from ("model.embed_tokens.weight", "model.norm.weight")
        if not self.full.get("tie_word_embeddings"):
            yield _HEAD
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            yield from (f"{at}self_attn.{part}_proj.weight" for part in "qkvo")
            yield from (f"{at}{part}_layernorm.weight" for part in ("input", "post_attention"))
            yield from (f"{at}mlp.{part}_proj.weight" for part in ("gate", "up", "down"))

    def _check_expert(self, expert: Model) -> None:
        for key in ("model_type", "hidden_act"):
            # What a file leaves out is its type's default.
            own, wanted = (m.config.get(key, self.full.get(key)) for m in (expert, self.base))
            if own != wanted:
                raise MergeError(
                    f"{expert.label} has {key} {own!r}, and {self.base.label} has {wanted!r}; "
                    "experts are fine-tunes of the base"
                )
        own_layers = {name for name in expert.tensors if FEED_FORWARD.match(name)}
        wanted_layers = {name for name in self.base.tensors if FEED_FORWARD.match(name)}
        for name in sorted(own_layers ^ wanted_layers):
            has, lacks = (expert, self.base) if name in own_layers else (self.base, expert)
            raise MergeError(f"{has.label} has the tensor {name!r}, and {lacks.label} does not")
        for name in sorted(own_layers):
            shape, wanted_shape = expert.tensors[name].shape, self.base.tensors[name].shape
            if shape != wanted_shape:
                raise MergeError(
                    f"tensor {name!r} has shape {list(shape)} in {expert.label} and "
                    f"{list(wanted_shape)} in {self.base.label}; experts have one shape"
                )

    def outputs(self) -> Iterator[OutputTensor]:
        """All tensors: the base's in its order, with experts where feed-forward layers were."""
        ties = find_ties([self.base])
        for name, tensor in self.base.tensors.items():
            found = FEED_FORWARD.match(name)
            if found:
                yield from self._experts(name, *found.groups())
            elif self.family.takes(name) and not self._is_tied(name, ties.follows(name)):
                yield self._output(name, Source(self.base.label, name, tensor))
        for layer in range(self.layers):
            yield from self._added(layer)

    def _is_tied(self, name: str, follows: bool) -> bool:
        return follows or (name == _HEAD and bool(self.full.get("tie_word_embeddings")))

    def _output(self, name: str, source: Source, method: Method | None = None) -> OutputTensor:
        dtype = element_format(self.config.dtype) or self._dtype(source)
        return OutputTensor(name, dtype, source.tensor.shape, (source,), method or Linear((1.0,)))

    def _dtype(self, source: Source) -> str:
        """The format of the base's tensor in this place, else of its embedding."""
        known = self.base.tensors
        return known.get(source.name, known["model.embed_tokens.weight"]).dtype

    def _experts(self, name: str, layer: str, matrix: str) -> Iterator[OutputTensor]:
        for number, expert in enumerate(self.config.experts):
            target = self.family.expert(layer, number, matrix)
            yield self._output(target, *self._changed(name, expert, matrix))
        if self.config.shared_experts:
            shared = self.config.shared_experts[0]
            target = f"model.layers.{layer}.{self.family.block}.shared_expert.{matrix}_proj.weight"
            yield self._output(target, *self._changed(name, shared, matrix))

    def _changed(self, name: str, expert: ExpertSource, matrix: str) -> tuple[Source, Method]:
        tensor = self.models[expert.source_model].tensors[name]
        scale = 1.0
        if matrix == "down" and expert.residual_scale is not None:
            scale = expert.residual_scale
        method: Method = Linear((scale,))
        if expert.noise_scale:
            method = Noisy(expert.noise_scale, scale, self.seed)
        return Source(expert.source_model, name, tensor), method

    def _added(self, layer: int) -> Iterator[OutputTensor]:
        """What a sparse layer has and a dense one has not: its router, and what must be zeros."""
        at, count = f"model.layers.{layer}.", len(self.config.experts)
        block = f"{at}{self.family.block}."
        rows = None if self.rows is None else self.rows[layer]
        own, shared = (None, None) if rows is None else (rows[:count], rows[count:])
        yield self._gate(f"{block}gate.weight", layer, count, own)
        if self.config.shared_experts:
            yield self._gate(f"{block}shared_expert_gate.weight", layer, 1, shared)
        elif self.family.shared:
            yield from self._no_shared_expert(block)
        for part in "qkv" if self.family.biased else "":
            bias, weight = f"{at}self_attn.{part}_proj.bias", f"{at}self_attn.{part}_proj.weight"
            if bias not in self.base.tensors:
                yield self._zeros(bias, self.base.tensors[weight].shape[:1])

    def _gate(self, name: str, layer: int, count: int, rows: Array | None) -> OutputTensor:
        shape = (count, int(self.full["hidden_size"]))
        mode, place = f"gate_mode {self.config.gate_mode}", f"layer {layer}"
        if rows is None:
            return self._output(name, Source(mode, place, HeaderOnly("F32", shape)))
        values = np.ascontiguousarray(rows, np.float32).reshape(-1)
        # The digest is part of the fingerprint by which a stopped run is taken up.
        digest = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        tensor = ArrayTensor(values, "F32", shape)
        return self._output(name, Source(mode, f"{place}, sha256 {digest}", tensor))

    def _no_shared_expert(self, block: str) -> Iterator[OutputTensor]:
        hidden, width = int(self.full["hidden_size"]), self.shared_width
        for part in ("gate", "up"):
            yield self._zeros(f"{block}shared_expert.{part}_proj.weight", (width, hidden))
        yield self._zeros(f"{block}shared_expert.down_proj.weight", (hidden, width))
        yield self._zeros(f"{block}shared_expert_gate.weight", (1, hidden))

    def _zeros(self, name: str, shape: tuple[int, ...]) -> OutputTensor:
        tensor: Tensor = ArrayTensor(np.zeros(elements(shape), STORED["F32"]), "F32", shape)
        return self._output(name, Source("zeros", name, tensor))

    def unused(self, outputs: tuple[OutputTensor, ...]) -> Iterator[tuple[str, str, str]]:
        """Input tensors that go nowhere, each with the reason."""
        used = {(source.model, source.name) for output in outputs for source in output.sources}
        for reference, model in self.models.items():
            for name in model.tensors:
                if (reference, name) not in used:
                    yield reference, name, self._reason(reference, name)

    def _reason(self, reference: str, name: str) -> str:
        if name.endswith(COMPUTED):
            return "a computed buffer"
        if reference != self.base.label:
            return "only the feed-forward layers of an expert are taken"
        if name == _HEAD:
            return "tied to model.embed_tokens.weight"
        return "the experts' feed-forward layers are taken"
