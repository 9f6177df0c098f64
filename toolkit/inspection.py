"""Says what a path holds: a checkpoint, an ONNX file, a bundle, a recipe or an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle import Manifest, is_bundle
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.checkpoint import Checkpoint

__all__ = ["Inspection", "Section", "inspect_path"]


@dataclass(frozen=True)
class Section:
    """Rows under column names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: ``checkpoint``, ``onnx``, ``bundle``, ``recipe`` or ``engine``.
        facts: Single values.
        sections: Lists.
    """

    kind: str
    facts: Mapping[str, Any]
    sections: tuple[Section, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        lists = {
            section.title: [dict(zip(section.columns, row, strict=True)) for row in section.rows]
            for section in self.sections
        }
        return {"kind": self.kind, **self.facts, **lists}


def inspect_path(path: Path) -> Inspection:
    """Look at ``path``.

    Raises:
        ToolkitError: If nothing is there, or it is nothing this tool knows.
        graphs.GraphError: If an ONNX file cannot be read.
    """
    if not path.exists():
        raise ToolkitError(f"{path} does not exist")
    if path.is_dir():
        return _bundle(path) if is_bundle(path) else _checkpoint(path)
    readers = {
        ".onnx": _onnx, ".safetensors": _checkpoint, ".yaml": _recipe, ".yml": _recipe,
        ".plan": _engine, ".engine": _engine,
    }  # fmt: skip
    reader = readers.get(path.suffix)
    if reader is None:
        raise ToolkitError(
            f"{path} is of no kind that can be inspected",
            hint="a model folder, a bundle, or a file ending in " + ", ".join(readers),
        )
    return reader(path)


def _checkpoint(path: Path) -> Inspection:
    from toolkit.checkpoint import open_checkpoint, tied  # noqa: PLC0415

    checkpoint = open_checkpoint(path)
    ties = tied(checkpoint)
    rows = [
        (name, entry.dtype, list(entry.shape), ties.get(name, ""), entry.nbytes)
        for name, (_, entry) in checkpoint.tensors.items()
    ]
    facts = {
        "architecture": ", ".join(checkpoint.config.get("architectures") or ["not named"]),
        "dtypes": ", ".join(sorted({str(row[1]) for row in rows})),
        "files": len(checkpoint.files),
        "tensors": len(rows),
        "bytes": checkpoint.nbytes,
        "tied weights": _ties(checkpoint, ties),
    }
    columns = ("name", "dtype", "shape", "stored as well in", "bytes")
    return Inspection("checkpoint", facts, (Section("tensors", columns, tuple(rows)),))


def _ties(checkpoint: Checkpoint, ties: Mapping[str, str]) -> str:
    """What the configuration says of the output head, and tensors that are stored twice."""
    said = checkpoint.config.get("tie_word_embeddings")
    stored = [f"{name} equals {first}, both are stored" for name, first in ties.items()]
    if stored:
        return "; ".join(stored)
    if said:
        return "the output head is the input embedding (tie_word_embeddings), stored once"
    return "none" if said is not None or checkpoint.config else "not known without a config.json"


def _onnx(path: Path) -> Inspection:
    import graphs  # noqa: PLC0415

    found = graphs.describe(path)
    facts = {
        "opset": found.opset,
        "producer": found.producer,
        "nodes": found.nodes,
        "parameters": found.parameters,
        "bytes of weights": found.bytes,
        "functions": ", ".join(found.functions) or "none",
    }
    interface = (
        *((("input", v.name, v.dtype, list(v.shape or ()))) for v in found.inputs),
        *((("output", v.name, v.dtype, list(v.shape or ()))) for v in found.outputs),
    )
    return Inspection(
        "onnx",
        facts,
        (
            Section("interface", ("", "name", "dtype", "shape"), interface),
            Section("operators", ("operator", "nodes"), tuple(found.operators.items())),
        ),
    )


def _bundle(path: Path) -> Inspection:
    manifest = Manifest.read(path / "manifest.json")
    engine = manifest.engine
    facts = {
        "verdict": manifest.verdict,
        "target": manifest.target,
        "opset": manifest.opset,
        "made by": f"toolkit {manifest.toolkit}",
        "engine": f"{engine.flavour} {engine.version}" if engine else "none",
    }
    files = tuple((name, record.bytes, record.sha256) for name, record in manifest.files.items())
    sources = tuple((s.member, s.path, s.bytes, s.sha256) for s in manifest.sources)
    interface = (
        *(("input", t.name, t.dtype, list(t.shape)) for t in manifest.inputs),
        *(("output", t.name, t.dtype, list(t.shape)) for t in manifest.outputs),
    )
    return Inspection(
        "bundle",
        facts,
        (
            Section("interface", ("", "name", "dtype", "shape"), interface),
            Section("files", ("file", "bytes", "sha256"), files),
            Section("sources", ("member", "file", "bytes", "sha256"), sources),
        ),
    )


def _recipe(path: Path) -> Inspection:
    from toolkit.recipe import load_recipe  # noqa: PLC0415

    # Looking at a recipe neither runs its code nor needs its files.
    recipe = load_recipe(path, allow_code=True, check_files=False)
    models = tuple((place, model.name, _kind(model)) for place, model in recipe.models())
    facts = {
        "target": recipe.target,
        "inputs": ", ".join(f"{spec.name}: {spec}" for spec in recipe.input_specs()) or "derived",
        "shapes": ", ".join(_ranges(recipe.shapes)) or "derived",
    }
    return Inspection("recipe", facts, (Section("models", ("place", "name", "kind"), models),))


def _kind(model: Any) -> str:
    kinds = ("checkpoint", "factory", "onnx", "merge", "moe", "soup", "ensemble", "stack")
    return next(kind for kind in kinds if hasattr(model, kind))


def _ranges(shapes: Mapping[str, Any]) -> Iterator[str]:
    for name, span in shapes.items():
        yield f"{name} [{span.min}, {span.opt}, {span.max}]"


def _engine(path: Path) -> Inspection:
    facts = {"bytes": path.stat().st_size, "opening it": "needs an NVIDIA GPU and its TensorRT"}
    return Inspection("engine", facts)
