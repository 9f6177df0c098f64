"""A recipe's models as a teacher: the tree of a plan as modules, and what it is known by.

The ids of a batch are the student's. Teachers with the same tokens in another order, or with
padding of another size (151936 and 152064 rows in one family), are translated as members of an
ensemble are (``toolkit.pipeline.vocabulary``); other vocabularies are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from toolkit.artifacts import OnnxModel
from toolkit.bundle import hash_file
from toolkit.distill import LiveTeacher, Needs, TargetKind, Task
from toolkit.distill.tree import EnsembleNode, GateNode, LeafNode, RunnerModule, StackNode
from toolkit.distill.whole import whole
from toolkit.errors import RecipeError
from toolkit.pipeline.nodes import (
    EnsemblePlan,
    GroupPlan,
    LeafPlan,
    Node,
    each_leaf,
)
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.readers import readers
from toolkit.pipeline.stacks import StackPlan
from toolkit.pipeline.vocabulary import Reader, translations
from toolkit.runtime import OrtRunner, Translation
from toolkit.sources import FactorySource, HuggingFaceSource, Source

_WEIGHTS = {".safetensors", ".onnx", ".data"}
_SETTINGS = {"config.json", "modules.json", "tokenizer.json"}

__all__ = ["live_teacher", "teacher_definition", "teacher_tree"]


def live_teacher(  # noqa: PLR0913  (each is a different thing, and all are needed)
    plan: Plan,
    task: Task,
    *,
    student: Source | None = None,
    target: TargetKind = "mixture",
    needs: Needs | None = None,
    dtype: str = "float32",
) -> LiveTeacher:
    """Load every model of a plan as one teacher.

    Args:
        plan: Of an encoder-decoder model, that of its decoder.
        task: Says what rows are.
        student: Whose vocabulary a batch is in; None says that it is the first teacher's.
        target: What several models are one target as.
        needs: What the objective reads.
        dtype: Of weights and arithmetic; gates at least in float32.

    Raises:
        RecipeError: If student and teachers do not share a vocabulary, or nothing is to be learnt.
        CheckpointError: If a model cannot be loaded.
    """
    root = plan.root
    while isinstance(root, StackPlan):
        root = root.stages[-1]
    if isinstance(root, GroupPlan):
        raise RecipeError(
            "the teachers are encoders, which say no words", hint="part: decoder, or leave it out"
        )
    space: Literal["logits", "probabilities", "values"] = "logits"
    if isinstance(root, EnsemblePlan):
        output, space = root.output, root.space
    else:
        names = [name for name in _outputs(root) if name in {"logits", "sentence_embedding"}]
        output = names[0] if names else _outputs(root)[0]
        space = "values" if output == "sentence_embedding" or task == "embedding" else "logits"
    tree = teacher_tree(plan.root, student, dtype)
    return LiveTeacher(tree, task, output=output, space=space, target=target, needs=needs)


def teacher_tree(root: Node, student: Source | None = None, dtype: str = "float32") -> nn.Module:
    """The models of a plan's tree, loaded and combined as in the plan.

    Raises:
        RecipeError: If student and teachers do not share a vocabulary.
        CheckpointError: If a model cannot be loaded.
    """
    return _Loading(dtype).node("", _translated(root, student))


def _translated(root: Node, student: Source | None) -> Node:
    """The tree with the tables that lead from the student's vocabulary to each model's."""
    if not isinstance(student, HuggingFaceSource):
        return root
    if student.encoder_decoder and student.part is None:
        student = replace(student, part="decoder")
    ids = "decoder_input_ids" if student.part == "decoder" else "input_ids"
    first = Reader((), student.name, student, ids, vetoed=False, learns=True)
    said = translations([first, *readers((), root, (), alone=True)])
    known = {reader.path for reader in readers((), root, (), alone=True)}

    def change(path: tuple[str, ...], leaf: LeafPlan) -> LeafPlan:
        made: Translation | None = said.get(path) if path in known else leaf.translation
        return replace(leaf, translation=made)

    return each_leaf((), root, change)


class _Loading:
    """How the nodes of a plan become modules."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def node(self, path: str, node: Node) -> nn.Module:
        """The module of a node; ``path`` is empty for the root."""
        if isinstance(node, LeafPlan):
            return self._leaf(path, node)
        if isinstance(node, GroupPlan):
            raise RecipeError("encoders side by side say no words and cannot teach")
        if isinstance(node, StackPlan):
            places = {stage.name: place for place, stage in enumerate(node.stages)}
            feeds = {name: (places[one.stage], one.output) for name, one in node.feeds.items()}
            return StackNode([self._below(path, s) for s in node.stages], feeds, node.rename)
        gate = None
        if node.gate is not None:
            gate = GateNode(self._below(path, node.gate.model), node.gate.rule)
        return EnsembleNode(
            [self._below(path, member) for member in node.members],
            node.weights,
            combine=node.combine,
            space=node.space,
            output=node.output,
            gate=gate,
            rename=node.rename,
        )

    def _below(self, path: str, node: Node) -> nn.Module:
        return self.node(f"{path}/{node.name}" if path else node.name, node)

    def _leaf(self, path: str, leaf: LeafPlan) -> nn.Module:
        origin = leaf.origin
        if isinstance(origin, OnnxModel):
            module: nn.Module = RunnerModule(OrtRunner(origin.path), leaf.outputs)
            names, outputs = [spec.name for spec in origin.inputs], leaf.outputs
        else:
            source = whole(origin)
            half = leaf.gates and self._dtype != "float64"
            module = source.load("float32" if half else self._dtype)
            names, outputs = [spec.name for spec in source.inputs], source.outputs
        return LeafNode(
            path,
            module,
            inputs=names,
            outputs=outputs,
            rename=leaf.rename,
            translation=leaf.translation,
        )


def _outputs(leaf: LeafPlan) -> tuple[str, ...]:
    return leaf.outputs if isinstance(leaf.origin, OnnxModel) else whole(leaf.origin).outputs


def teacher_definition(node: Node) -> dict[str, Any]:
    """What a teacher's targets depend on, as JSON values: the tree, and the hash of every file."""
    found: dict[str, Any] = {"rename": dict(sorted(node.rename.items()))}
    if isinstance(node, LeafPlan):
        return {**found, **_leaf_definition(node)}
    found["parts"] = [teacher_definition(part) for part in node.parts]
    if isinstance(node, StackPlan):
        found["feeds"] = {name: [one.stage, one.output] for name, one in node.feeds.items()}
    if isinstance(node, EnsemblePlan):
        found.update(combine=node.combine, space=node.space, output=node.output)
        if node.gate is None:
            found["weights"] = list(node.weights)
        else:
            rule = node.gate.rule
            found["gate"] = [rule.output, rule.top_k, rule.activation]
    return found


def _leaf_definition(leaf: LeafPlan) -> Mapping[str, Any]:
    # what says how a folder came about, and when, is no part of what it computes
    asked = [path for path in leaf.files if path.suffix in _WEIGHTS or path.name in _SETTINGS]
    files = [[path.name, hash_file(path).sha256] for path in asked]
    origin = leaf.origin
    if isinstance(origin, FactorySource):
        return {"files": files, "factory": origin.target, "kwargs": dict(origin.kwargs)}
    if isinstance(origin, HuggingFaceSource):
        return {"files": files, "task": origin.task}
    return {"files": files}
