"""The first bytes of a plan, which say what made it and can be read on any machine.

NVIDIA's own ``trtexec --getPlanVersionOnly`` reads TensorRT's in this way: a tag, the layout's
number, and the version at byte 24. TensorRT-RTX writes the same behind another tag (seen in plans
of 1.7.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.engine.choices import TITLES, Flavour
from toolkit.errors import EngineError

__all__ = ["PlanHeader", "read_header"]

_TAGS: dict[bytes, Flavour] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
_LAYOUT = slice(4, 8)
_VERSION = slice(24, 28)
_LENGTH = 28


@dataclass(frozen=True)
class PlanHeader:
    """What made a plan.

    Attributes:
        flavour: Which of the two libraries.
        version: Its version; empty where the layout is not known.
    """

    flavour: Flavour
    version: str

    @property
    def title(self) -> str:
        """The two as one text."""
        return f"{TITLES[self.flavour]} {self.version or '(of a version not known here)'}"


def read_header(path: Path) -> PlanHeader:
    """Read the header.

    Raises:
        EngineError: If the file cannot be read or is no plan.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    flavour = _TAGS.get(start[:4])
    if flavour is None or len(start) < _LENGTH:
        raise EngineError(
            f"{path} is no plan: found {start[:4]!r} at its beginning, wanted one of "
            + ", ".join(tag.decode() for tag in _TAGS),
            hint="toolkit build makes plans",
        )
    known = int.from_bytes(start[_LAYOUT], "little") == 0
    version = ".".join(map(str, start[_VERSION])) if known else ""
    return PlanHeader(flavour, version)
