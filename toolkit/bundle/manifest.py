"""``manifest.json``: what a bundle holds, what it was made from, and with what."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit._version import __version__
from toolkit.artifacts import Engine, TensorSpec
from toolkit.errors import BundleError

__all__ = [
    "EngineRecord",
    "ExpertRecord",
    "FileRecord",
    "LayerRecord",
    "Manifest",
    "NeuronRecord",
    "QuantisationRecord",
    "SourceRecord",
    "TensorRecord",
    "hash_file",
    "versions",
]

_PACKAGES = (
    "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "transformers", "safetensors",
    "numpy", "tensorrt-rtx", "tensorrt",
)  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of the bundle."""

    sha256: str
    bytes: int


class SourceRecord(_Record):
    """One file that went in; ``path`` is relative to the recipe's folder."""

    member: str
    path: str
    sha256: str
    bytes: int


class TensorRecord(_Record):
    """One input or output, as C++ programs and servers need it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: float | None = None
    high: float | None = None
    role: Literal["values", "mask"] = "values"

    def spec(self) -> TensorSpec:
        """The same for whoever runs the graph."""
        return TensorSpec(
            self.name, self.dtype, self.shape, low=self.low, high=self.high, role=self.role
        )


class EngineRecord(_Record):
    """The engine beside the graph."""

    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    layers: int
    profiles: tuple[str, ...] = ()  # in order; none is one without a name
    # Read back from what the parser made of the graph, and held against it.
    kinds: dict[str, int] = {}  # layers by TensorRT's name of their type
    dtypes: dict[str, int] = {}  # their outputs by type of data
    conditionals: int = 0
    options: dict[str, Any] = {}  # that differ from the defaults
    carries_plugins: bool = False
    ranges: tuple[dict[str, tuple[int, int, int]], ...] = ()  # of each profile; none: not recorded
    plugin: str = "none"

    @classmethod
    def of(cls, engine: Engine) -> EngineRecord:
        """What a manifest says of an engine."""
        return cls(
            flavour=engine.flavour,
            version=engine.version,
            compute_capabilities=engine.compute_capabilities,
            layers=engine.layers,
            profiles=engine.profiles,
            kinds=dict(engine.kinds),
            dtypes=dict(engine.dtypes),
            conditionals=engine.conditionals,
            options=dict(engine.options),
            carries_plugins=engine.carries_plugins,
            ranges=tuple(
                {name: (span.min, span.opt, span.max) for name, span in each.items()}
                for each in engine.ranges
            ),
            plugin=engine.plugin,
        )


class ExpertRecord(_Record):
    """How layers of experts were lowered, and why."""

    lowering: str
    reason: str
    milliseconds: dict[str, dict[str, float]] | None = None  # by lowering and number of tokens


class LayerRecord(_Record):
    """How silent the neurons of a feed-forward layer are, and whether its graph skips them.

    ``silent`` is the mean share of neurons that say nothing to any of so many tokens at once,
    ``break_even`` the share from which on gathering is faster than the whole product, and
    ``milliseconds`` what the whole product and the rewritten layer take on activations seen; all by
    number of tokens.
    """

    neurons: int
    width: int
    skipped: bool
    silent: dict[str, float]
    break_even: dict[str, float] | None = None
    milliseconds: dict[str, tuple[float, float]] | None = None


class NeuronRecord(_Record):
    """Whether silent neurons are skipped, by layer, and why."""

    reason: str
    seen: str  # what inputs the activations are of
    layers: dict[str, LayerRecord]


class QuantisationRecord(_Record):
    """How the graph came to low precision; bytes are those of weights with their scales."""

    precision: str
    quantiser: str
    calibration: str
    nodes: int
    kept: tuple[str, ...]
    bytes_before: int
    bytes_after: int


class Manifest(_Record):
    """Everything ``toolkit`` needs to know about a bundle without opening its graph."""

    format: Literal[1] = 1
    toolkit: str = __version__
    root: str  # the folder the recipe's paths start from, relative to the bundle
    verdict: Literal["passed", "failed"]
    target: str
    opset: int
    seed: int
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    shapes: dict[str, tuple[int, int, int]]
    engine: EngineRecord | None
    experts: ExpertRecord | None = None
    neurons: NeuronRecord | None = None
    quantisation: QuantisationRecord | None = None
    versions: dict[str, str]
    sources: tuple[SourceRecord, ...]
    files: dict[str, FileRecord]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            BundleError: If it is missing or not a manifest of a known format.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BundleError(
                f"{path.parent} has no {path.name}, so it is no bundle",
                hint="toolkit export RECIPE -o DIR makes one",
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise BundleError(
                f"{path} is not a manifest this version reads: {str(error).splitlines()[0]}"
            ) from error

    def write(self, path: Path) -> None:
        """Write with sorted keys, so that equal bundles have equal bytes."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def hash_file(path: Path) -> FileRecord:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        # hashlib.file_digest needs Python 3.11
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return FileRecord(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def versions() -> dict[str, str]:
    """The interpreter and the packages that took part and are installed."""
    installed = ((name, _version(name)) for name in _PACKAGES)
    return {"python": platform.python_version(), **{name: v for name, v in installed if v}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
