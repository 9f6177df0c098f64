"""A recipe, resolved: which files, which inputs, which shapes, before any weight is read.

Everything that configuration files and headers can tell is checked here, so that a mistake costs
seconds, not an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.artifacts import OnnxModel, Shapes, TensorSpec
from toolkit.caches import PRESENT, is_cache
from toolkit.errors import RecipeError
from toolkit.export import adopt_onnx
from toolkit.pipeline.interface import (
    join_inputs,
    resolve_output,
    resolve_scores,
    resolve_shapes,
)
from toolkit.pipeline.merged import merged_source
from toolkit.pipeline.nodes import (
    EnsemblePlan,
    GatePlan,
    GroupPlan,
    LeafPlan,
    Node,
    each_leaf,
    walk_leaves,
)
from toolkit.pipeline.own_caches import all_or_none, own_caches
from toolkit.pipeline.parts import check_part
from toolkit.pipeline.readers import readers
from toolkit.pipeline.scratch import in_scratch
from toolkit.pipeline.soups import make_soup_of, soup_source
from toolkit.pipeline.stacks import FeedPlan, StackPlan, check_dimensions, check_feeds
from toolkit.pipeline.vocabulary import translations
from toolkit.recipe import (
    BUILT_IN_FACTORIES,
    CheckpointModel,
    DistillModel,
    EnsembleModel,
    FactoryModel,
    GateSpec,
    MergeModel,
    Model,
    MoeModel,
    OnnxFile,
    Recipe,
    SoupModel,
    StackModel,
)
from toolkit.runtime import GateRule
from toolkit.sources import FactorySource, HuggingFaceSource, Part, Source

__all__ = [
    "EnsemblePlan",
    "FeedPlan",
    "GatePlan",
    "GroupPlan",
    "LeafPlan",
    "Node",
    "Plan",
    "StackPlan",
    "make_plan",
    "plan_teachers",
    "soup_members",
]


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
    root: Node
    inputs: tuple[TensorSpec, ...]
    shapes: Shapes

    def leaves(self) -> Iterator[tuple[str, LeafPlan]]:
        """Every model with its path in the ensemble, in recipe order."""
        yield from walk_leaves("", self.root)


def make_plan(recipe: Recipe, folder: Path) -> Plan:
    """Resolve a recipe whose paths are read against ``folder``.

    Raises:
        RecipeError: If inputs, outputs, shapes or renames do not fit together.
        CheckpointError: If a model folder or weight file cannot be used.
        MergeError: If models cannot be merged.
        graphs.GraphError: If an ONNX member cannot be read.
    """
    root = _rooted(recipe, folder)
    _check_precision(recipe, root)
    inputs = join_inputs([(root.name, root.inputs, root.rename)], declared=recipe.input_specs())
    check_dimensions(_feeds(root), inputs)
    sources = [leaf.origin for _, leaf in walk_leaves("", root)]
    shapes = resolve_shapes(inputs, recipe.shapes, sources)
    return Plan(recipe, folder, root, inputs, shapes)


def plan_teachers(recipe: Recipe, folder: Path) -> Plan:
    """Resolve a recipe whose model is not exported, so that it has no ranges of shapes.

    Raises:
        ToolkitError: As ``make_plan``.
    """
    root = _rooted(recipe, folder)
    inputs = join_inputs([(root.name, root.inputs, root.rename)])
    return Plan(recipe, folder, root, inputs, {})


def _rooted(recipe: Recipe, folder: Path) -> Node:
    root = _resolve(recipe.model, recipe, folder)
    check_part(recipe.part, walk_leaves("", root))
    all_or_none(walk_leaves("", root))
    root = each_leaf((), root, own_caches)
    said = translations(list(readers((), root, ())))
    return each_leaf((), root, lambda path, leaf: replace(leaf, translation=said.get(path)))


def _check_precision(recipe: Recipe, root: Node) -> None:
    """A graph that a pass lowers is held against PyTorch in half precision."""
    foreign = [name for name, leaf in walk_leaves("", root) if isinstance(leaf.origin, OnnxModel)]
    if recipe.export.mixed and foreign:
        raise RecipeError(
            f"export.precision is {recipe.export.precision}, and {foreign[0]!r} is an ONNX file: "
            "there is no PyTorch model to say how large a healthy error is",
            hint="lower the file itself with graphs.MixedPrecision, or build from the checkpoint",
        )


def _feeds(node: Node) -> Iterator[TensorSpec]:
    if isinstance(node, StackPlan):
        yield from (feed.spec for feed in node.feeds.values())
    if not isinstance(node, LeafPlan):
        for part in node.parts:
            yield from _feeds(part)


def _resolve(
    model: Model,
    recipe: Recipe,
    folder: Path,
    seen: tuple[TensorSpec, ...] | None = None,
    fed: tuple[TensorSpec, ...] = (),
) -> Node:
    """Resolve a model.

    ``seen`` are the inputs that it may take, for a gate and what is in it; ``fed`` those that it
    may take besides, in a stack.
    """
    if isinstance(model, EnsembleModel):
        return _resolve_ensemble(model, recipe, folder, seen, fed)
    if isinstance(model, StackModel):
        return _resolve_stack(model, recipe, folder, seen, fed)
    available = (*(recipe.input_specs() if seen is None else seen), *fed)
    origin = _origin(model, recipe, folder, available, recipe.part if seen is None else None)
    return LeafPlan(model.name, origin, model.rename, gates=seen is not None)


def _origin(
    model: Model,
    recipe: Recipe,
    folder: Path,
    available: tuple[TensorSpec, ...],
    part: Part | None,
) -> Source | OnnxModel:
    """A model's source; ``available`` are the inputs that a factory may take."""
    if isinstance(model, CheckpointModel):
        return HuggingFaceSource(model.name, model.checkpoint.path, model.task, model.cache, part)
    if isinstance(model, SoupModel):
        return _soup(model, recipe, folder, available)
    if isinstance(model, MergeModel | MoeModel):
        return merged_source(model, folder, recipe.seed, part)
    if isinstance(model, DistillModel):
        from toolkit.pipeline.distilled import distilled_source  # noqa: PLC0415  (plans teachers)

        return distilled_source(model, recipe, folder, available, part)
    if isinstance(model, OnnxFile):
        return adopt_onnx(model.onnx.path)
    assert isinstance(model, FactoryModel)
    return FactorySource(
        name=model.name,
        target=model.factory,
        weights=model.weights.path,
        available=available,
        rename=model.rename,
        outputs=tuple(model.outputs),
        kwargs=model.kwargs,
        # nothing beside a recipe may stand in for a module of ours
        search=None if model.factory in BUILT_IN_FACTORIES else folder,
    )


def soup_members(
    model: SoupModel,
    recipe: Recipe,
    folder: Path,
    available: tuple[TensorSpec, ...] | None = None,
) -> list[Source]:
    """The fine-tunes of a soup; ``available`` to factories are the recipe's inputs if None.

    Raises:
        RecipeError: If one is an encoder-decoder model.
    """
    specs = recipe.input_specs() if available is None else available
    found = [
        _origin(member, recipe, folder, specs, None)
        for member in model.soup.members
        if isinstance(member, CheckpointModel | FactoryModel)  # the recipe allows no others
    ]
    for member in found:
        if isinstance(member, HuggingFaceSource) and member.encoder_decoder:
            raise RecipeError(
                f"soup {model.name!r} has the encoder-decoder model {member.name!r}, which no "
                "score here can rate",
                hint="merge: with merge_method: linear averages without a score",
            )
    return [member for member in found if not isinstance(member, OnnxModel)]


def _soup(
    model: SoupModel, recipe: Recipe, folder: Path, available: tuple[TensorSpec, ...]
) -> Source:
    members = soup_members(model, recipe, folder, available)

    def make(scratch: Path) -> Source:
        report = make_soup_of(model, members, scratch / model.name, recipe.seed)
        return soup_source(model, members, report)

    return in_scratch(make)


def _resolve_stack(
    model: StackModel,
    recipe: Recipe,
    folder: Path,
    seen: tuple[TensorSpec, ...] | None,
    fed: tuple[TensorSpec, ...],
) -> StackPlan:
    feeds = {
        name: FeedPlan(*feed.source, feed.spec(name)) for name, feed in model.stack.feeds.items()
    }
    stages: list[Node] = []
    for stage in model.stack.stages:
        known = {spec.name: spec for made in stages for spec in _under_shared_names(made)}
        own = (*known.values(), *fed, *(feed.spec for feed in feeds.values()))
        stages.append(_resolve(stage, recipe, folder, seen, own))
    named = (n for s in stages for n in (*(spec.name for spec in s.inputs), *s.outputs))
    cached = next(filter(is_cache, named), None)
    if cached is not None:
        raise RecipeError(
            f"a stage of {model.name!r} has caches ({cached}), and a stack has none",
            hint="leave cache: true or part out: stages read whole sequences",
        )
    stack = StackPlan(model.name, tuple(stages), feeds, model.rename)
    check_feeds(stack)
    return stack


def _under_shared_names(node: Node) -> Iterator[TensorSpec]:
    yield from (replace(spec, name=node.rename.get(spec.name, spec.name)) for spec in node.inputs)


def _resolve_ensemble(
    model: EnsembleModel,
    recipe: Recipe,
    folder: Path,
    seen: tuple[TensorSpec, ...] | None,
    fed: tuple[TensorSpec, ...],
) -> EnsemblePlan | GroupPlan:
    spec = model.ensemble
    members = tuple(_resolve(member, recipe, folder, seen, fed) for member in spec.members)
    if recipe.part == "encoder" and seen is None:
        return GroupPlan(model.name, members, model.rename)
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
        gate=None if spec.gate is None else _gate(spec.gate, members, recipe, folder, fed),
    )


def _gate(
    spec: GateSpec,
    members: Sequence[Node],
    recipe: Recipe,
    folder: Path,
    fed: tuple[TensorSpec, ...],
) -> GatePlan:
    own = join_inputs(
        # caches are no business of the gate's
        (m.name, [spec for spec in m.inputs if not is_cache(spec.name)], m.rename)
        for m in members
    )
    seen = {given.name: given for given in (*recipe.input_specs(), *fed, *own)}
    model = _resolve(spec.model, recipe, folder, tuple(seen.values()))
    output = resolve_scores(model.name, model.outputs, spec.output)
    return GatePlan(model, GateRule(output, spec.top_k, spec.activation))
