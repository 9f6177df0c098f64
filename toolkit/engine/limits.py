"""Which values an option takes, and which options a flavour lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.engine.choices import POOLS, TITLES, Flavour
from toolkit.errors import EngineError

if TYPE_CHECKING:
    from toolkit.engine.options import EngineOptions

__all__ = ["LACKING", "Lack", "check", "lacking"]

_CAPABILITY = re.compile(r"^\d{1,2}\.\d$")
_SHARED_LIMIT = 1 << 30
# Values of options that ask for nothing.
_NOTHING = ((), "none", False, "auto", "off")


@dataclass(frozen=True)
class Lack:
    """An option that a flavour does not have, why, and what to do instead."""

    flavour: Flavour
    option: str
    why: str
    hint: str


LACKING = (
    Lack(
        "tensorrt", "compute_capabilities",
        "a TensorRT engine is built for the GPU of the machine that builds it",
        "leave them out, or use the target tensorrt-rtx",
    ),
    Lack(
        "tensorrt-rtx", "plugin", "TensorRT-RTX takes no plugins",
        "leave it out, and the operators' bodies run; or use the target tensorrt",
    ),
    Lack(
        "tensorrt-rtx", "hardware_compatibility",
        "a TensorRT-RTX engine is for every architecture that it is built for",
        "name them with compute_capabilities",
    ),
    Lack(
        "tensorrt-rtx", "version_compatible",
        "TensorRT-RTX comes without the lean runtime that such a plan needs",
        "build with the version that will run the engine",
    ),
    Lack(
        "tensorrt-rtx", "exclude_lean_runtime",
        "TensorRT-RTX comes without the lean runtime",
        "leave it out",
    ),
    Lack(
        "tensorrt-rtx", "timing_cache",
        "TensorRT-RTX times no kernels when it builds: it compiles them where the engine runs",
        "leave it out",
    ),
    Lack(
        "tensorrt-rtx", "timing_cache_strict",
        "TensorRT-RTX times no kernels when it builds: it compiles them where the engine runs",
        "leave it out",
    ),
)  # fmt: skip
"""How it is known: TensorRT-RTX 1.7.1 warns that the first is unsupported and that its timing cache
does nothing, and stops for want of libnvinfer_lean; plugins are in its documentation."""


def lacking(flavour: Flavour) -> frozenset[str]:
    """The names of the options that a flavour does not have."""
    return frozenset(lack.option for lack in LACKING if lack.flavour == flavour)


def check(options: EngineOptions) -> None:
    """Hold options against what their flavour has and what makes sense.

    Raises:
        EngineError: Saying what was found and what was wanted.
    """
    for lack in LACKING:
        value = getattr(options, lack.option)
        if lack.flavour == options.flavour and value not in _NOTHING:
            said = ", ".join(value) if isinstance(value, tuple) else str(value)
            raise EngineError(f"found {lack.option} {said}: {lack.why}", hint=lack.hint)
    for problem, hint in (*_values(options), *_together(options)):
        raise EngineError(problem, hint=hint)


def _values(options: EngineOptions) -> Iterator[tuple[str, str]]:
    """What is wrong with single options, and what to do."""
    yield from _capabilities(options)
    for pool, size in options.memory.items():
        if pool not in POOLS:
            yield f"found memory {pool!r}, wanted a pool", "one of " + ", ".join(POOLS)
        elif size < 1:
            yield f"memory of {pool} is {size} bytes; it must be positive", ""
        elif pool == "tactic_shared_memory" and size >= _SHARED_LIMIT:
            yield f"memory of {pool} is {size} bytes; it must be below 1 GiB", ""
    if options.optimization_level not in {None, 0, 1, 2, 3, 4, 5}:
        found = options.optimization_level
        yield f"optimization_level is {found}; it must be 0, 1, 2, 3, 4 or 5", ""
    if options.aux_streams is not None and options.aux_streams < 0:
        yield f"aux_streams is {options.aux_streams}; it must be 0 or more", ""
    if options.time_limit <= 0:
        yield f"time_limit is {options.time_limit} s; it must be positive", ""


def _capabilities(options: EngineOptions) -> Iterator[tuple[str, str]]:
    for capability in options.compute_capabilities:
        if not _CAPABILITY.match(capability):
            hint = "for example 8.6 (RTX 30), 8.9 (RTX 40) or 12.0 (RTX 50)"
            yield f"compute capability {capability!r} is not of the form major.minor", hint
    if len(set(options.compute_capabilities)) < len(options.compute_capabilities):
        listed = ", ".join(options.compute_capabilities)
        yield f"a compute capability is listed twice: {listed}", ""


def _together(options: EngineOptions) -> Iterator[tuple[str, str]]:
    """What is wrong with options beside each other."""
    if options.exclude_lean_runtime and not options.version_compatible:
        yield (
            "found exclude_lean_runtime without version_compatible, which has that runtime",
            "ask for both, or for neither",
        )
    if options.timing_cache_strict and options.timing_cache == "off":
        yield "found timing_cache_strict and no timing cache to be strict about", "name its file"
    if options.timing_cache_strict and options.optimization_level == 0:
        yield (
            "found timing_cache_strict with optimization_level 0, which reads no timing cache",
            f"{TITLES['tensorrt']} reads it from level 1 on",
        )
