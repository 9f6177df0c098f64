"""The contract of a pass: one graph to one graph, with a report of what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import onnx_ir as ir

from graphs.near_miss import NearMiss

__all__ = ["NearMiss", "Pass", "PassReport"]


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: The pass.
        sites: Names of the rewritten nodes or initializers, in graph order.
        near_misses: Places that almost matched, with reasons.
    """

    name: str
    sites: tuple[str, ...] = ()
    near_misses: tuple[NearMiss, ...] = field(default=())


@runtime_checkable
class Pass(Protocol):
    """A rewrite of one graph. Implementations are frozen dataclasses; fields are options.

    ``requires`` raises ``GraphError``, naming what was found as well as what was wanted;
    ``apply`` rewrites the model in place; ``ensures`` checks the pass's own promise afterwards.
    """

    name: ClassVar[str]

    def requires(self, model: ir.Model) -> None:
        """Raise ``GraphError`` if the pass cannot work on this graph."""

    def apply(self, model: ir.Model) -> PassReport:
        """Rewrite in place."""

    def ensures(self, model: ir.Model) -> None:
        """Raise ``GraphError`` if what the pass promises does not hold."""
