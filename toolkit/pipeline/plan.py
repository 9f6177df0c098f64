"""A recipe, resolved: which files, which inputs, which shapes, before any weight is read.

Everything that configuration files and headers can tell is checked here, so that a mistake costs
seconds, not an export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from toolkit.artifacts import OnnxModel, Shapes, TensorSpec
from toolkit.caches import PRESENT
from toolkit.checkpoint import Checkpoint, open_checkpoint
from toolkit.errors import RecipeError
from toolkit.export import adopt_onnx
from toolkit.pipeline.interface import (
    join_inputs,
    resolve_output,
    resolve_scores,
    resolve_shapes,
)
from toolkit.pipeline.merged import merged_source
from toolkit.pipeline.own_caches import all_or_none, own_caches
from toolkit.pipeline.scratch import in_scratch
from toolkit.pipeline.soups import make_soup_of, soup_source
from toolkit.pipeline.vocabulary import Reader, translations
from toolkit.recipe import (
    BUILT_IN_FACTORIES,
    CheckpointModel,
    EnsembleModel,
    FactoryModel,
    GateSpec,
    MergeModel,
    Model,
    OnnxFile,
    Recipe,
    SoupModel,
)
from toolkit.runtime import GateRule, Translation
from toolkit.sources import FactorySource, HuggingFaceSource, Source

__all__ = ["EnsemblePlan", "GatePlan", "LeafPlan", "Plan", "make_plan", "soup_members"]


@dataclass(frozen=True)
class LeafPlan:
    """One model: a PyTorch source, or an ONNX file made elsewhere.

    A gate, or part of one, stays in float32 where members are in half precision: it decides
    between them, and takes a small part of the time.

    ``caches`` are outputs that a member of an ensemble keeps for itself: from its own names to
    those in the fused graph. Its ``rename`` names the inputs they continue in the same way.
    """

    name: str
    origin: Source | OnnxModel
    rename: Mapping[str, str] = field(default_factory=dict)
    gates: bool = False
    caches: Mapping[str, str] = field(default_factory=dict)
    translation: Translation | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Its inputs under its own names; token ids are those of the ensemble."""
        said = self.translation
        if said is None:
            return self.origin.inputs
        own = self.origin.inputs
        return tuple(replace(s, high=len(said.reads)) if s.name == said.ids else s for s in own)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Its outputs' names."""
        if isinstance(self.origin, OnnxModel):
            return tuple(spec.name for spec in self.origin.outputs)
        return self.origin.outputs

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is made from."""
        if not isinstance(self.origin, OnnxModel):
            return self.origin.files
        data = self.origin.path.with_name(self.origin.path.name + ".data")
        return (self.origin.path, data) if data.is_file() else (self.origin.path,)

    def checkpoint(self) -> Checkpoint | None:
        """Its weights, where they are a checkpoint."""
        if isinstance(self.origin, HuggingFaceSource):
            return open_checkpoint(self.origin.folder)
        if isinstance(self.origin, FactorySource):
            return open_checkpoint(self.origin.weights)
        return None


@dataclass(frozen=True)
class GatePlan:
    """A model whose scores give the weights, and how; see ``GateRule``."""

    model: LeafPlan | EnsemblePlan
    rule: GateRule


@dataclass(frozen=True)
class EnsemblePlan:
    """Members whose ``output`` is interpolated, with constant weights or by a gate."""

    name: str
    members: tuple[LeafPlan | EnsemblePlan, ...]
    weights: tuple[float, ...]
    combine: Literal["linear", "log_linear"]
    space: Literal["logits", "probabilities", "values"]
    output: str
    rename: Mapping[str, str] = field(default_factory=dict)
    gate: GatePlan | None = None

    @property
    def parts(self) -> tuple[LeafPlan | EnsemblePlan, ...]:
        """The models below it: members and, last, the gate."""
        return (*self.members, *(() if self.gate is None else (self.gate.model,)))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The union of its members' and its gate's inputs, under the ensemble's names."""
        return join_inputs((part.name, part.inputs, part.rename) for part in self.parts)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The interpolated output, then the caches of every member."""
        caches = (name for _, leaf in _leaves("", self) for name in leaf.caches.values())
        return (self.output, *caches)


@dataclass(frozen=True)
class Plan:
    """A recipe whose every name is resolved.

    Attributes:
        recipe: What was asked for.
        folder: What the recipe's paths are read against.
        root: The tree of models.
        inputs: The inputs of the finished graph.
        shapes: The range of each of their symbolic dimensions.
    """

    recipe: Recipe
    folder: Path
    root: LeafPlan | EnsemblePlan
    inputs: tuple[TensorSpec, ...]
    shapes: Shapes

    def leaves(self) -> Iterator[tuple[str, LeafPlan]]:
        """Every model with its path in the ensemble, in recipe order."""
        yield from _leaves("", self.root)


def make_plan(recipe: Recipe, folder: Path) -> Plan:
    """Resolve a recipe whose paths are read against ``folder``.

    Raises:
        RecipeError: If inputs, outputs, shapes or renames do not fit together.
        CheckpointError: If a model folder or weight file cannot be used.
        MergeError: If models cannot be merged.
        graphs.GraphError: If an ONNX member cannot be read.
    """
    root = _resolve(recipe.model, recipe, folder)
    _check_precision(recipe, root)
    all_or_none(_leaves("", root))
    root = _each_leaf((), root, own_caches)
    said = translations(list(_readers((), root, ())))
    root = _each_leaf((), root, lambda path, leaf: replace(leaf, translation=said.get(path)))
    inputs = join_inputs([(root.name, root.inputs, root.rename)], declared=recipe.input_specs())
    sources = [leaf.origin for _, leaf in _leaves("", root)]
    shapes = resolve_shapes(inputs, recipe.shapes, sources)
    return Plan(recipe, folder, root, inputs, shapes)


def _check_precision(recipe: Recipe, root: LeafPlan | EnsemblePlan) -> None:
    """A graph that a pass lowers is held against PyTorch in half precision."""
    foreign = [name for name, leaf in _leaves("", root) if isinstance(leaf.origin, OnnxModel)]
    if recipe.export.mixed and foreign:
        raise RecipeError(
            f"export.precision is {recipe.export.precision}, and {foreign[0]!r} is an ONNX file: "
            "there is no PyTorch model to say how large a healthy error is",
            hint="lower the file itself with graphs.MixedPrecision, or build from the checkpoint",
        )


def _each_leaf(
    path: tuple[str, ...],
    node: LeafPlan | EnsemblePlan,
    change: Callable[[tuple[str, ...], LeafPlan], LeafPlan],
) -> LeafPlan | EnsemblePlan:
    """The tree with every model changed; ``change`` is given its path, empty for the root."""
    if isinstance(node, LeafPlan):
        return change(path, node)
    below = tuple(_each_leaf((*path, m.name), m, change) for m in node.members)
    if node.gate is None:
        return replace(node, members=below)
    model = node.gate.model
    gate = replace(node.gate, model=_each_leaf((*path, model.name), model, change))
    return replace(node, members=below, gate=gate)


def _readers(
    path: tuple[str, ...], node: LeafPlan | EnsemblePlan, above: tuple[EnsemblePlan, ...]
) -> Iterator[Reader]:
    """Every Hugging Face model that is a member, with the ensembles above it, outermost last."""
    if isinstance(node, EnsemblePlan):
        for member in node.members:
            yield from _readers((*path, member.name), member, (node, *above))
    elif above and isinstance(node.origin, HuggingFaceSource):
        ids = "input_ids"
        for rename in (node.rename, *(ensemble.rename for ensemble in above)):
            ids = rename.get(ids, ids)
        vetoed = any(ensemble.combine == "log_linear" for ensemble in above)
        yield Reader(path, node.name, node.origin, ids, vetoed)


def _leaves(prefix: str, node: LeafPlan | EnsemblePlan) -> Iterator[tuple[str, LeafPlan]]:
    if isinstance(node, LeafPlan):
        yield prefix + node.name, node
        return
    for member in node.parts:
        # the root's own name is no part of the graph's names
        inner = f"{prefix}{member.name}/" if isinstance(member, EnsemblePlan) else prefix
        yield from _leaves(inner, member)


def _resolve(
    model: Model, recipe: Recipe, folder: Path, seen: tuple[TensorSpec, ...] | None = None
) -> LeafPlan | EnsemblePlan:
    """Resolve a model; ``seen`` are the inputs that it may take, for a gate and what is in it."""
    if isinstance(model, EnsembleModel):
        return _resolve_ensemble(model, recipe, folder, seen)
    origin = _origin(model, recipe, folder)
    if isinstance(origin, FactorySource) and seen is not None:
        origin = replace(origin, available=seen)
    return LeafPlan(model.name, origin, model.rename, gates=seen is not None)


def _origin(
    model: CheckpointModel | FactoryModel | MergeModel | OnnxFile | SoupModel,
    recipe: Recipe,
    folder: Path,
) -> Source | OnnxModel:
    if isinstance(model, CheckpointModel):
        return HuggingFaceSource(model.name, model.checkpoint.path, model.task, model.cache)
    if isinstance(model, SoupModel):
        return _soup(model, recipe, folder)
    if isinstance(model, MergeModel):
        return merged_source(model, folder, recipe.seed)
    if isinstance(model, OnnxFile):
        return adopt_onnx(model.onnx.path)
    return FactorySource(
        name=model.name,
        target=model.factory,
        weights=model.weights.path,
        available=recipe.input_specs(),
        rename=model.rename,
        outputs=tuple(model.outputs),
        kwargs=model.kwargs,
        # nothing beside a recipe may stand in for a module of ours
        search=None if model.factory in BUILT_IN_FACTORIES else folder,
    )


def soup_members(model: SoupModel, recipe: Recipe, folder: Path) -> list[Source]:
    """The fine-tunes of a soup."""
    found = [
        _origin(member, recipe, folder)
        for member in model.soup.members
        if isinstance(member, CheckpointModel | FactoryModel)  # the recipe allows no others
    ]
    return [member for member in found if not isinstance(member, OnnxModel)]


def _soup(model: SoupModel, recipe: Recipe, folder: Path) -> Source:
    members = soup_members(model, recipe, folder)

    def make(scratch: Path) -> Source:
        report = make_soup_of(model, members, scratch / model.name, recipe.seed)
        return soup_source(model, members, report)

    return in_scratch(make)


def _resolve_ensemble(
    model: EnsembleModel, recipe: Recipe, folder: Path, seen: tuple[TensorSpec, ...] | None
) -> EnsemblePlan:
    spec = model.ensemble
    members = tuple(_resolve(member, recipe, folder, seen) for member in spec.members)
    outputs: Sequence[tuple[str, tuple[str, ...]]] = [
        (m.name, tuple(name for name in m.outputs if not name.startswith(PRESENT))) for m in members
    ]
    return EnsemblePlan(
        name=model.name,
        members=members,
        weights=tuple(spec.weights),
        combine=spec.combine,
        space=spec.space,
        output=resolve_output(model.name, outputs, spec.output),
        rename=model.rename,
        gate=None if spec.gate is None else _gate(spec.gate, members, recipe, folder),
    )


def _gate(
    spec: GateSpec, members: Sequence[LeafPlan | EnsemblePlan], recipe: Recipe, folder: Path
) -> GatePlan:
    own = join_inputs((member.name, member.inputs, member.rename) for member in members)
    seen = {given.name: given for given in (*recipe.input_specs(), *own)}
    model = _resolve(spec.model, recipe, folder, tuple(seen.values()))
    output = resolve_scores(model.name, model.outputs, spec.output)
    return GatePlan(model, GateRule(output, spec.top_k, spec.activation))
