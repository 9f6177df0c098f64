"""The members of a bundle as models of their own, joined by one of Triton's ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphs import Description, TensorInfo, describe
from toolkit.artifacts import DimRange, Shapes, TensorSpec
from toolkit.bundle import Bundle
from toolkit.errors import PackageError
from toolkit.package.artefact import Artefact
from toolkit.package.config import Served, build_config, ensemble_config
from toolkit.package.drafts import Draft
from toolkit.package.interface import Interface, interface_of
from toolkit.package.layout import GRAPH
from toolkit.package.options import PackageOptions
from toolkit.package.repository import Packaged, add_all, copying, model_name, row_mixing
from toolkit.package.warmup import FOLDER, warmup_inputs

__all__ = ["Step", "package_steps"]


@dataclass(frozen=True)
class Step:
    """One model of the ensemble.

    Attributes:
        name: Without that of the ensemble.
        graph: Its ONNX file, with its data beside it.
        inputs: From its own names to tensors of the ensemble.
        outputs: Likewise; those left out are not used.
    """

    name: str
    graph: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def package_steps(
    bundle: Bundle, steps: Sequence[Step], out: Path, options: PackageOptions | None = None
) -> Packaged:
    """Add each step as a model, and ``NAME_unfused``, which computes what the bundle's graph does.

    It is for comparison: the server passes what members say from one model to the next.

    Raises:
        PackageError: If a step cannot be served, or the repository cannot be written.
    """
    options = replace(options or PackageOptions(), state="client")
    name = f"{model_name(bundle, options)}_unfused"
    shapes: Shapes = {dim: DimRange(*span) for dim, span in bundle.manifest.shapes.items()}
    mixing = bool(row_mixing(bundle))
    whole = interface_of(describe(bundle.model), shapes, rows_mix=mixing)
    made: dict[str, TensorInfo] = {}
    drafts = []
    for step in steps:
        found = describe(step.graph)
        interface = interface_of(found, shapes, rows_mix=not whole.max_batch_size)
        if bool(interface.max_batch_size) != bool(whole.max_batch_size):
            raise PackageError(
                f"{step.name!r} has no batch of its own, and the fused graph has one",
                hint="leave --unfused out: the members cannot be joined row by row",
            )
        specs = _specs(bundle, step, found, made)
        drafts.append(_draft(f"{name}.{step.name}", step, interface, specs, options, shapes))
        made |= {step.outputs[t.name]: t for t in found.outputs if t.name in step.outputs}
    joined = [
        (draft.name, step.inputs, step.outputs) for draft, step in zip(drafts, steps, strict=True)
    ]
    config = ensemble_config(name, whole, joined, options)
    return add_all(out, [*drafts, Draft(name, config, _note)], [])


def _specs(
    bundle: Bundle, step: Step, found: Description, made: Mapping[str, TensorInfo]
) -> list[TensorSpec]:
    """What is valid in each input: as the bundle says, or anything where a step gives it."""
    known = {record.name: record.spec() for record in bundle.manifest.inputs}
    return [
        replace(known[step.inputs[tensor.name]], name=tensor.name)
        if step.inputs[tensor.name] in known and step.inputs[tensor.name] not in made
        else TensorSpec(tensor.name, tensor.dtype, tuple(map(_dim, tensor.shape or ())))
        for tensor in found.inputs
    ]


def _dim(dim: int | str | None) -> int | str:
    return 1 if dim is None else dim


def _draft(  # noqa: PLR0913, PLR0917  (each is a different thing)
    name: str,
    step: Step,
    interface: Interface,
    specs: Sequence[TensorSpec],
    options: PackageOptions,
    shapes: Shapes,
) -> Draft:
    files = {GRAPH: step.graph}
    data = step.graph.with_name(step.graph.name + ".data")
    if data.is_file():
        # The graph names its data file, so that keeps its name.
        files[data.name] = data
    artefact = Artefact("onnxruntime", GRAPH, files, shapes, shapes)
    warmup = warmup_inputs(interface, specs, shapes, 0)
    config = build_config(name, Served(interface, artefact, warmup), options)
    beside = {f"{FOLDER}/{each.file}": each.data for each in warmup}
    return Draft(name, config, copying(files), beside)


def _note(folder: Path) -> None:
    text = "The steps of this ensemble stand in its configuration.\n"
    (folder / "README.txt").write_text(text, encoding="utf-8")
