"""Looks at a path: which kind it is, and what a file of that kind says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle import Manifest, is_bundle
from toolkit.errors import ToolkitError
from toolkit.inspection.found import Inspection, Section
from toolkit.inspection.plans import engine_facts, inspect_plan
from toolkit.inspection.refusals import checked

if TYPE_CHECKING:
    from graphs import ExpertLayer
    from toolkit.bundle import ExpertRecord, NeuronRecord
    from toolkit.checkpoint import Checkpoint

__all__ = ["inspect_path"]

_ACTIVE = "active parameters per token"


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
        ".plan": inspect_plan, ".engine": inspect_plan,
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
        **_sparse(checkpoint),
    }
    columns = ("name", "dtype", "shape", "stored as well in", "bytes")
    return Inspection("checkpoint", facts, (Section("tensors", columns, tuple(rows)),))


def _sparse(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a Mixture-of-Experts says of itself; nothing for other models."""
    from toolkit.checkpoint import active_parameters, expert_counts  # noqa: PLC0415

    counts = expert_counts(checkpoint.config)
    if counts is None:
        return {}
    total, active = active_parameters(checkpoint, counts)
    return {
        "experts": f"{counts.experts} in a layer, {counts.k} for each token",
        "parameters": total,
        _ACTIVE: active,
    }


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
    layers = graphs.expert_layers(path)
    facts = {
        "opset": found.opset,
        "producer": found.producer,
        "nodes": found.nodes,
        "parameters": found.parameters,
        "bytes of weights": found.bytes,
        "functions": ", ".join(found.functions) or "none",
        **_active(found.parameters, layers),
    }
    said, refused = checked(path, "", None)
    interface = (
        *((("input", v.name, v.dtype, list(v.shape or ()))) for v in found.inputs),
        *((("output", v.name, v.dtype, list(v.shape or ()))) for v in found.outputs),
    )
    return Inspection(
        "onnx",
        facts | said,
        (
            Section("interface", ("", "name", "dtype", "shape"), interface),
            *_layers(layers),
            *refused,
            Section("operators", ("operator", "nodes"), tuple(found.operators.items())),
        ),
    )


def _active(parameters: int, layers: Sequence[ExpertLayer]) -> dict[str, int]:
    """The parameters that one token is multiplied by, where that is not all of them."""
    idle = sum(layer.parameters - layer.active for layer in layers)
    return {_ACTIVE: parameters - idle} if layers else {}


def _layers(layers: Sequence[ExpertLayer]) -> Iterator[Section]:
    if layers:
        columns = ("layer", "experts", "k", "routing", "lowering", "parameters", "active per token")
        rows = [
            (one.name, one.experts, one.top_k or "not known", one.routing, one.lowering,
             one.parameters, one.active)
            for one in layers
        ]  # fmt: skip
        yield Section("experts", columns, tuple(rows))


def _bundle(path: Path) -> Inspection:
    manifest = Manifest.read(path / "manifest.json")
    engine = manifest.engine
    facts: dict[str, Any] = {
        "verdict": manifest.verdict,
        "target": manifest.target,
        "opset": manifest.opset,
        "made by": f"toolkit {manifest.toolkit}",
        "engine": f"{engine.flavour} {engine.version}" if engine else "none",
    }
    if engine is not None:
        facts |= engine_facts(engine)
    sparse: tuple[Section, ...] = ()
    if manifest.experts is not None:
        facts |= {
            "experts lowered to": manifest.experts.lowering,
            "because": manifest.experts.reason,
        }
        found = _onnx(path / "model.onnx")
        facts |= {
            name: found.facts[name] for name in ("parameters", _ACTIVE) if name in found.facts
        }
        sparse = tuple(section for section in found.sections if section.title == "experts")
        sparse += tuple(_measured(manifest.experts))
    if manifest.neurons is not None:
        facts["silent neurons"] = manifest.neurons.reason
        sparse += tuple(_neurons(manifest.neurons))
    said, refused = checked(path / "model.onnx", manifest.target, tuple(manifest.shapes))
    files = tuple((name, record.bytes, record.sha256) for name, record in manifest.files.items())
    sources = tuple((s.member, s.path, s.bytes, s.sha256) for s in manifest.sources)
    interface = (
        *(("input", t.name, t.dtype, list(t.shape)) for t in manifest.inputs),
        *(("output", t.name, t.dtype, list(t.shape)) for t in manifest.outputs),
    )
    return Inspection(
        "bundle",
        facts | said,
        (
            Section("interface", ("", "name", "dtype", "shape"), interface),
            *sparse,
            *refused,
            Section("files", ("file", "bytes", "sha256"), files),
            Section("sources", ("member", "file", "bytes", "sha256"), sources),
        ),
    )


def _measured(experts: ExpertRecord) -> Iterator[Section]:
    """The lowerings that were timed, where the export chose between them."""
    if experts.milliseconds:
        counts = tuple(dict.fromkeys(n for each in experts.milliseconds.values() for n in each))
        rows = [
            (name, *(each.get(count, "") for count in counts))
            for name, each in experts.milliseconds.items()
        ]
        columns = ("lowering", *(f"ms for {count} tokens" for count in counts))
        yield Section("lowerings measured", columns, tuple(rows))


def _neurons(found: NeuronRecord) -> Iterator[Section]:
    """The layers after a ReLU, where the export looked at what they say."""
    if found.layers:
        rows = [
            (name, layer.neurons, layer.width, layer.skipped, layer.silent.get("1", ""),
             (layer.break_even or {}).get("1", ""))
            for name, layer in found.layers.items()
        ]  # fmt: skip
        columns = ("layer", "neurons", "width", "skips", "silent at 1 token", "pays from")
        yield Section("silent neurons", columns, tuple(rows))


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
    from toolkit.recipe.models import KINDS  # noqa: PLC0415

    return next(kind for kind in KINDS if hasattr(model, kind))


def _ranges(shapes: Mapping[str, Any]) -> Iterator[str]:
    for name, span in shapes.items():
        yield f"{name} [{span.min}, {span.opt}, {span.max}]"
