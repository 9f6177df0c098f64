"""What a builder will refuse, said before it is started."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import graphs
from toolkit.engine.choices import TITLES, Flavour
from toolkit.engine.requirements import DISTRIBUTIONS
from toolkit.errors import EngineError

__all__ = ["installed_version", "refuse"]

_SHOWN = 3


def installed_version(flavour: Flavour) -> str:
    """The version of a flavour's package on this machine; empty where it is not installed."""
    try:
        return version(DISTRIBUTIONS[flavour])
    except PackageNotFoundError:
        return ""


def refuse(model: Path, flavour: Flavour, ranges: Collection[str] | None) -> None:
    """Check a graph against everything a builder is known to refuse, get wrong or crash on.

    Held against the installed version, or where none is installed against what all versions
    refuse.

    Args:
        model: The ONNX file.
        flavour: The builder.
        ranges: Names of the dimensions that have a range; None does not ask for ranges.

    Raises:
        EngineError: Naming rule and node of the first three.
        graphs.GraphError: If the file cannot be read.
    """
    found = [
        each
        for each in graphs.check_tensorrt(model, flavour, _known(flavour), ranges)
        if each.always
    ]
    if not found:
        return
    said = "; ".join(map(str, found[:_SHOWN]))
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    hint = found[0].hint or "toolkit check lists all of them with their sources"
    raise EngineError(f"{TITLES[flavour]} cannot build this graph: {said}{more}", hint=hint)


def _known(flavour: Flavour) -> str:
    installed = installed_version(flavour)
    return installed if graphs.is_known_version(flavour, installed) else ""
