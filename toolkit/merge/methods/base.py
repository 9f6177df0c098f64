"""What a merge method is."""

from __future__ import annotations

from typing import Any, Protocol

from toolkit.merge.operands import Operands

__all__ = ["Findings", "Method"]

# What a method found out about a tensor, as JSON values; goes into merge.json.
Findings = dict[str, Any]


class Method(Protocol):
    """A frozen dataclass of resolved parameters for one tensor.

    Attributes:
        relative: Whether the first operand is a base model and the others count as differences
            from it.
    """

    @property
    def relative(self) -> bool:
        """See the class."""

    def __call__(self, operands: Operands) -> Findings:
        """Read all operands, emit every element once, and tell what was found."""
