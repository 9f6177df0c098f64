"""Looks at a plan: its header, the manifest beside it, and where there is a GPU the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.bundle import MANIFEST, EngineRecord, Manifest, hash_file
from toolkit.engine import Needs, lacking_to_run, read_engine, read_header
from toolkit.engine.inspector import read_information
from toolkit.engine.messages import Opened
from toolkit.errors import IntegrityError
from toolkit.inspection.found import Inspection, Section

__all__ = ["engine_facts", "inspect_plan"]

_MiB = 1 << 20


def inspect_plan(path: Path) -> Inspection:
    """Say of a plan what can be read here, and what needs a GPU.

    Raises:
        EngineError: If the file is no plan, or TensorRT does not take it.
        IntegrityError: If it is not the plan that the manifest beside it is about.
        CapabilityError: If there is a GPU, and the plan is for another or another version.
    """
    header = read_header(path)
    record = _record(path)
    facts: dict[str, Any] = {"built with": header.title, "bytes": path.stat().st_size}
    if record is not None:
        facts |= engine_facts(record)
    lacking = lacking_to_run(header.flavour)
    if lacking:
        facts["layers, precision and memory"] = (
            f"need the engine to be opened: this machine lacks {' and '.join(lacking)}"
        )
        return Inspection("engine", facts)
    needs = Needs.of(record, path.parent) if record else Needs(header.flavour, header.version)
    opened = read_engine(path, needs)
    return Inspection("engine", facts | _said(opened), _sections(opened))


def _record(path: Path) -> EngineRecord | None:
    """What the manifest beside a plan says of it; None where there is none."""
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return None
    found = Manifest.read(manifest)
    known = found.files.get(path.name)
    if known is None or found.engine is None:
        return None
    if known != hash_file(path):
        raise IntegrityError(
            f"{path} is not the plan that {manifest} is about: its SHA-256 differs",
            hint=f"build it again: toolkit build {path.parent}",
        )
    return found.engine


def engine_facts(record: EngineRecord) -> dict[str, Any]:
    """What a manifest says of an engine."""
    kinds = ", ".join(f"{count} {name}" for name, count in record.kinds.items())
    types = ", ".join(f"{count} of {name}" for name, count in record.dtypes.items())
    return {
        "built for": ", ".join(record.compute_capabilities) or "what the builder takes by default",
        "profiles": ", ".join(record.profiles) or "one for the whole range",
        "asked for": _listed(record.options) or "nothing beside the defaults",
        "layers of the parsed network": f"{record.layers}: {kinds}" if kinds else record.layers,
        "their outputs": types or "not recorded",
        "conditionals": record.conditionals,
        "plugin library": "in the plan" if record.carries_plugins else "not in the plan",
    }


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(
        name if value is True else f"{name} {_listed(value) if isinstance(value, dict) else value}"
        for name, value in options.items()
    )


def _said(opened: Opened) -> dict[str, Any]:
    layers = read_information(opened["information"])
    types = Counter(dtype for layer in layers for dtype in layer.dtypes)
    precision = ", ".join(f"{count} of {name}" for name, count in types.most_common())
    plugins = [layer.name for layer in layers if "plugin" in layer.kind.lower()]
    return {
        "layers": opened["layers"],
        "precision": precision or "not kept; build with --profiling-verbosity detailed",
        "device memory": ", ".join(f"{size / _MiB:.1f} MiB" for size in opened["memory"]),
        "weights that can stream": f"{opened['streamable'] / _MiB:.1f} MiB",
        "refittable": opened["refittable"],
        "auxiliary streams": opened["aux_streams"],
        "plugins": ", ".join(plugins) or "none seen",
    }


def _sections(opened: Opened) -> tuple[Section, ...]:
    rows = [
        (kind, tensor["name"], tensor["dtype"], tensor["shape"])
        for kind in ("input", "output")
        for tensor in (opened["inputs"] if kind == "input" else opened["outputs"])
    ]
    ranges = [
        (number, name, *shapes)
        for number, profile in enumerate(opened["ranges"])
        for name, shapes in profile.items()
    ]
    layers = [
        (layer.name, layer.kind, ", ".join(layer.dtypes), layer.tactic)
        for layer in read_information(opened["information"])
    ]
    return (
        Section("interface", ("", "name", "dtype", "shape"), tuple(rows)),
        Section("profiles", ("profile", "input", "min", "opt", "max"), tuple(ranges)),
        Section("layers", ("layer", "type", "outputs", "kernel"), tuple(layers)),
    )
