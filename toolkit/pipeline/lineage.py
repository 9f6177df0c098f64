"""A plan in words: which models, how they are combined, with which weights."""

from __future__ import annotations

from toolkit.artifacts import OnnxModel
from toolkit.pipeline.plan import GroupPlan, LeafPlan, Node, Plan, StackPlan
from toolkit.report import Member

__all__ = ["lineage"]

_WORDS = {"linear": "linear (a mixture)", "log_linear": "log-linear (a product of experts)"}


def lineage(plan: Plan) -> Member:
    """The tree of models."""
    return _member(plan.root, None)


def _member(node: Node, weight: float | None, role: str = "") -> Member:
    if isinstance(node, LeafPlan):
        return Member(node.name, role + _origin(node), weight)
    if isinstance(node, StackPlan):
        stages = tuple(_member(stage, None, _fed(node, stage)) for stage in node.stages)
        return Member(node.name, f"{role}stack of {len(stages)} stages", weight, stages)
    if isinstance(node, GroupPlan):
        below = [_member(member, None) for member in node.members]
        return Member(node.name, f"{role}{len(below)} models side by side", weight, tuple(below))
    detail = f"{_WORDS[node.combine]} ensemble on {node.space}, output {node.output}"
    if node.gate is None:
        members = zip(node.members, node.weights, strict=True)
        return Member(node.name, role + detail, weight, tuple(_member(m, w) for m, w in members))
    rule = node.gate.rule
    how = "gate, " + rule.activation
    how += "" if rule.top_k is None else f" of the {rule.top_k} largest scores"
    below = [_member(member, None) for member in node.members]
    below.append(_member(node.gate.model, None, how + ": "))
    return Member(node.name, role + detail, weight, tuple(below))


def _fed(stack: StackPlan, stage: Node) -> str:
    """What a stage is fed, before what it is."""
    found = [f"{feed.stage}/{feed.output}" for feed in stack.fed(stage).values()]
    return f"fed {', '.join(found)}: " if found else ""


def _origin(leaf: LeafPlan) -> str:
    if isinstance(leaf.origin, OnnxModel):
        return f"ONNX file {leaf.origin.path.name}"
    return leaf.origin.description
