"""What a localisation found, as plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["Explanation", "Finding", "Suspect"]


@dataclass(frozen=True)
class Finding:
    """Something in the file that is not as a fresh export of the recipe has it.

    Attributes:
        subject: The node, weight or output.
        detail: What was found and what was wanted.
    """

    subject: str
    detail: str


@dataclass(frozen=True)
class Suspect:
    """A node whose output leaves its budget while its inputs have not.

    Attributes:
        node: Its name.
        op: Its operator.
        call: Name of the call whose function's body it is part of, or nothing.
        value: The output that leaves its budget.
        member: Member of the ensemble, or nothing.
        expert: Expert of the mixture, or nothing.
        module: Dotted path of the PyTorch module, or nothing.
        source: PyTorch operator and line of code, or nothing.
        through: Nodes in front of it that a fresh export does not have.
        samples: In how many samples it is such a node.
        ratio: R, the largest error over the budget's unit: how many times the healthy error.
            ``inf`` where values are not comparable: NaN, infinite, or of another shape.
        within: The values changed, but stay within the budget; reported only where no node
            leaves it.
        sample: The sample with the largest R, and there
        error: the root mean square error,
        healthy: what a healthy graph's would be,
        index: where the error is largest,
        reference: the value there in float64,
        found: and the value in the graph.
        findings: What differs in the file at this node.
    """

    node: str
    op: str
    call: str
    value: str
    member: str
    expert: str
    module: str
    source: str
    through: tuple[str, ...]
    samples: int
    ratio: float
    within: bool
    sample: str
    error: float
    healthy: float
    index: tuple[int, ...]
    reference: float
    found: float
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Where a graph goes wrong.

    Attributes:
        suspects: Most telling first.
        findings: Every difference between the file and a fresh export, telling or not.
        samples: Names of the cases that were run.
        nodes: Nodes of the graph, functions inlined.
        values: Values that were compared.
        unmatched: Values of the graph that a fresh export does not have.
        left_out: Values of control-flow subgraphs, which are not compared.
        chunks: Runs it took for each sample, bounded by memory.
        limit: The R that a healthy value may have.
        seconds: Wall-clock time, the fresh export not counted.
        notes: What the reader should know about how this was measured.
    """

    suspects: tuple[Suspect, ...]
    findings: tuple[Finding, ...]
    samples: tuple[str, ...]
    nodes: int
    values: int
    unmatched: tuple[str, ...]
    left_out: tuple[str, ...]
    chunks: int
    limit: float
    seconds: float
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Indented JSON; numbers that are not finite are strings, which every reader takes."""
        return json.dumps(_plain(asdict(self)), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), -float("inf")}):  # noqa: PLR0124
        return str(value)
    return value
