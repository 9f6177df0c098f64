"""What the two sides of the builder process say to each other, as JSON lines."""

from __future__ import annotations

from typing import Literal, TypedDict

from toolkit.engine.choices import Flavour, Hardware, Refit, Verbosity
from toolkit.engine.plugging import Plugin

__all__ = [
    "CacheUse",
    "Event",
    "Failure",
    "Log",
    "NetworkFacts",
    "Opened",
    "Phase",
    "ReadRequest",
    "Request",
    "Result",
    "Tensor",
]


class Request(TypedDict):
    """One line on the worker's standard input.

    Each of ``profiles`` maps every symbolic dimension to (min, opt, max); paths are absolute;
    ``switches`` are the names of those that are on; ``timing_cache`` is a file, ``{version}`` in
    its name to be filled in; ``device`` is the compute capability of this machine's GPU.
    """

    job: Literal["build"]
    flavour: Flavour
    model: str
    plan: str
    profiles: list[dict[str, tuple[int, int, int]]]
    compute_capabilities: list[str]
    memory: dict[str, int]
    optimization_level: int | None
    aux_streams: int | None
    tf32: bool
    switches: list[str]
    refit: Refit
    hardware_compatibility: Hardware
    profiling_verbosity: Verbosity | None
    plugin: Plugin
    timing_cache: str | None
    timing_cache_strict: bool
    device: str | None


class ReadRequest(TypedDict):
    """A plan to open; ``host_code`` allows the code that it may carry to run."""

    job: Literal["read"]
    flavour: Flavour
    plan: str
    host_code: bool


class Tensor(TypedDict):
    """An input or output as the parsed network holds it; None is a dimension without a name."""

    name: str
    dtype: str
    shape: list[int | str | None]


class Phase(TypedDict):
    """The builder entered a phase or finished one of its steps."""

    event: Literal["phase"]
    name: str
    done: int
    steps: int


class Log(TypedDict):
    """A line of the builder's own log; ``severity`` is TensorRT's name for it."""

    event: Literal["log"]
    severity: str
    text: str


class Failure(TypedDict):
    """The build failed for a reason that can be told."""

    event: Literal["failure"]
    kind: Literal["engine", "capability"]
    message: str
    hint: str


class CacheUse(TypedDict):
    """Which timing cache was used, and how many bytes it had before and has now."""

    path: str
    before: int
    after: int


class NetworkFacts(TypedDict):
    """A network as the parser made it.

    ``kinds`` counts layers by type, ``dtypes`` their outputs by type of data; of each profile
    ``ranges`` has the smallest, usual and largest shape of every dynamic input.
    """

    layers: int
    inputs: list[Tensor]
    outputs: list[Tensor]
    kinds: dict[str, int]
    dtypes: dict[str, int]
    conditionals: int
    ranges: list[dict[str, list[list[int]]]]


class Result(TypedDict):
    """The plan is written."""

    event: Literal["result"]
    version: str
    network: NetworkFacts
    timing_cache: CacheUse | None
    carries_plugins: bool
    notes: list[str]


class Opened(TypedDict):
    """What an engine says of itself.

    ``memory`` is in bytes, for each profile; ``information`` is the inspector's JSON.
    """

    event: Literal["opened"]
    version: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    ranges: list[dict[str, list[list[int]]]]
    memory: list[int]
    streamable: int
    refittable: bool
    aux_streams: int
    layers: int
    information: str


Event = Phase | Log | Failure | Result | Opened
