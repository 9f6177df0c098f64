"""Whether this machine can run a plan, found out before TensorRT is given it.

TensorRT's answer to a plan of another version or GPU is an error at best; so what made the plan is
compared with what is here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from toolkit.bundle import EngineRecord
from toolkit.engine.choices import TITLES, Flavour, Hardware
from toolkit.engine.messages import Opened, ReadRequest
from toolkit.engine.process import BuildProcess
from toolkit.engine.refusals import installed_version
from toolkit.engine.requirements import device_capability, missing
from toolkit.errors import CapabilityError
from toolkit.progress import silent

__all__ = ["Needs", "lacking_to_run", "misfits", "read_engine", "require_fit"]

_OPENING_LIMIT = 300.0  # seconds


@dataclass(frozen=True)
class Needs:
    """What a plan was built with and for.

    Attributes:
        flavour: The library.
        version: Its version.
        compute_capabilities: Those it was built for; empty is not known, or the builder's choice.
        version_compatible: Whether later releases of the same major can run it.
        hardware_compatibility: GPUs beside its own.
        rebuild: The command that builds it again.
    """

    flavour: Flavour
    version: str
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatibility: Hardware = "none"
    rebuild: str = "toolkit build BUNDLE"

    @classmethod
    def of(cls, record: EngineRecord, bundle: Path) -> Needs:
        """What the engine of a bundle was built with."""
        options = record.options
        return cls(
            flavour=cast("Flavour", record.flavour),
            version=record.version,
            compute_capabilities=record.compute_capabilities,
            version_compatible=bool(options.get("version_compatible")),
            hardware_compatibility=cast("Hardware", options.get("hardware_compatibility", "none")),
            rebuild=f"toolkit build {bundle}",
        )


def require_fit(needs: Needs, what: str) -> None:
    """Check that a plan can be run here; call it before deserializing.

    Raises:
        CapabilityError: If the package or a GPU is missing, or the plan is for others; the hint
            is the command that builds it again.
    """
    lacking = lacking_to_run(needs.flavour)
    if lacking:
        raise CapabilityError(
            f"{what} cannot be run: this machine lacks {' and '.join(lacking)}",
            hint=f"run it where they are, or build it there: {needs.rebuild}",
        )
    for problem in misfits(needs, installed_version(needs.flavour), device_capability() or ""):
        raise CapabilityError(f"{what} {problem}", hint=f"build it again here: {needs.rebuild}")


def lacking_to_run(flavour: Flavour) -> tuple[str, ...]:
    """What this machine lacks for running engines; TensorRT-RTX only builds without a GPU."""
    found = missing(flavour)
    if device_capability() is None and not any("GPU" in each for each in found):
        found += ("an NVIDIA GPU with its driver",)
    return found


def misfits(needs: Needs, installed: str, device: str) -> Iterator[str]:
    """Why a machine with this version and GPU cannot run a plan.

    Args:
        needs: What the plan was built with.
        installed: Version of the library; empty is not known.
        device: Compute capability of the GPU.
    """
    title = TITLES[needs.flavour]
    built, here = _numbers(needs.version), _numbers(installed)
    later = needs.version_compatible and built[:1] == here[:1] and here >= built
    if built and here and built != here and not later:
        yield f"was built with {title} {needs.version}, this machine has {installed}"
    known = needs.compute_capabilities
    ampere = needs.hardware_compatibility == "ampere_plus" and _numbers(device) >= (8, 0)
    if known and "unknown" not in known and device not in known and not ampere:
        yield f"was built for compute capability {', '.join(known)}, this GPU has {device}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def read_engine(plan: Path, needs: Needs, *, host_code: bool = False) -> Opened:
    """Open a plan in a process of its own and read what the engine says of itself.

    Args:
        plan: The file.
        needs: What it was built with.
        host_code: Whether code that the plan carries may run: a lean runtime, a plugin library.

    Raises:
        CapabilityError: If this machine cannot run it.
        EngineError: If TensorRT does not take it.
    """
    require_fit(needs, str(plan))
    request: ReadRequest = {
        "job": "read", "flavour": needs.flavour, "plan": str(plan.absolute()),
        "host_code": host_code,
    }  # fmt: skip
    answer = BuildProcess(request, _OPENING_LIMIT, silent).run()
    assert answer["event"] == "opened"
    return answer
