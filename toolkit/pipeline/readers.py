"""The models of a plan that read tokens, which are to mean the same by them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.pipeline.nodes import EnsemblePlan, GroupPlan, Node
from toolkit.pipeline.stacks import StackPlan
from toolkit.pipeline.vocabulary import Reader
from toolkit.sources import HuggingFaceSource

__all__ = ["readers"]


def readers(
    path: tuple[str, ...],
    node: Node,
    above: tuple[EnsemblePlan | GroupPlan, ...],
    *,
    alone: bool = False,
) -> Iterator[Reader]:
    """Every Hugging Face model that is a member, with the ensembles above it, outermost last.

    Args:
        path: Of the node.
        node: Where to look.
        above: Ensembles around it.
        alone: Whether models that are in no ensemble count too.
    """
    if isinstance(node, (EnsemblePlan, GroupPlan)):
        for member in node.members:
            yield from readers((*path, member.name), member, (node, *above), alone=alone)
    elif isinstance(node, StackPlan):
        for stage in node.stages:
            yield from readers((*path, stage.name), stage, (), alone=alone)
    elif (above or alone) and isinstance(node.origin, HuggingFaceSource):
        ids = "decoder_input_ids" if node.origin.part == "decoder" else "input_ids"
        for rename in (node.rename, *(ensemble.rename for ensemble in above)):
            ids = rename.get(ids, ids)
        vetoed = any(isinstance(e, EnsemblePlan) and e.combine == "log_linear" for e in above)
        yield Reader(path, node.name, node.origin, ids, vetoed)
