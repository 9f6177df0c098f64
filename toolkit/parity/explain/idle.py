"""Values that stand in for a member that did not run, and so have no right answer."""

from __future__ import annotations

from collections.abc import Sequence

import graphs

__all__ = ["idle_values"]


def idle_values(nodes: Sequence[graphs.NodeOutline]) -> frozenset[str]:
    """What ``skip_gated_members`` may fill with zeros, up to where the weights silence it.

    Args:
        nodes: In graph order, functions inlined.
    """
    idle: set[str] = set()
    for node in nodes:
        skipped = node.op == "If" and node.name in {f"{name}/skip" for name in node.outputs}
        # CastLike takes nothing but the type from its second input.
        read = node.inputs[:1] if node.op == "CastLike" else node.inputs
        if skipped or (node.op != "Where" and idle.intersection(read)):
            idle.update(node.outputs)
    return frozenset(idle)
