"""Whether two plans are one recipe but for their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.artifacts import OnnxModel
from toolkit.errors import RefitError
from toolkit.pipeline.plan import EnsemblePlan, GroupPlan, LeafPlan, Node, Plan, StackPlan
from toolkit.sources import FactorySource, HuggingFaceSource

__all__ = ["require_same"]

# What config.json says and no graph depends on.
_IDLE = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id",
    "finetuning_task", "problem_type",
}  # fmt: skip


def require_same(old: Plan, new: Plan) -> None:
    """Refuse a plan whose graph would be another one.

    Raises:
        RefitError: Naming the first thing that differs.
    """
    have, want = dict(_facts(new)), dict(_facts(old))
    for key in dict.fromkeys((*want, *have)):
        if have.get(key) != want.get(key):
            raise RefitError(
                f"{key}: found {_short(have.get(key))}, wanted {_short(want.get(key))} as in the "
                "bundle",
                hint="only weights can be refitted; toolkit export builds another graph",
            )


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _facts(plan: Plan) -> Iterator[tuple[str, object]]:
    yield "inputs", tuple(map(str, plan.inputs))
    yield "shapes", {name: (span.min, span.opt, span.max) for name, span in plan.shapes.items()}
    yield from _node("", plan.root)


def _node(above: str, node: Node) -> Iterator[tuple[str, object]]:
    path = above + node.name
    yield f"{path} is", type(node).__name__.removesuffix("Plan")
    yield f"{path}: rename", dict(node.rename)
    if isinstance(node, LeafPlan):
        yield from _leaf(path, node)
        return
    if isinstance(node, EnsemblePlan):
        yield f"{path}: combine", (node.combine, node.space, node.output)
        yield f"{path}: weights", node.weights
        yield f"{path}: gate", None if node.gate is None else node.gate.rule
    elif isinstance(node, StackPlan):
        yield f"{path}: feeds", {name: str(feed) for name, feed in node.feeds.items()}
    else:
        assert isinstance(node, GroupPlan)
    for part in node.parts:
        yield from _node(f"{path}/", part)


def _leaf(path: str, leaf: LeafPlan) -> Iterator[tuple[str, object]]:
    origin = leaf.origin
    yield f"{path}: inputs", tuple(map(str, leaf.inputs))
    yield f"{path}: outputs", leaf.outputs
    yield f"{path}: caches", dict(leaf.caches)
    yield f"{path}: vocabulary", leaf.translation
    if isinstance(origin, OnnxModel):
        yield f"{path}: kind", "an ONNX file"
    elif isinstance(origin, FactorySource):
        yield f"{path}: factory", (origin.target, dict(origin.kwargs))
    elif isinstance(origin, HuggingFaceSource):
        yield f"{path}: task", (origin.head, origin.cache, origin.part)
        for key, value in _config(origin).items():
            yield f"{path}: config.json, {key}", value


def _config(source: HuggingFaceSource) -> dict[str, Any]:
    said: dict[str, Any] = source.config.to_dict()
    return {key: value for key, value in sorted(said.items()) if key not in _IDLE}
