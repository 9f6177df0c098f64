"""A checkpoint becomes one with N of M weights: pruned block by block, written shard by shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from toolkit.errors import MergeError, RecipeError
from toolkit.pipeline.checkpoints import copy_beside, new_checkpoint, refuse_existing
from toolkit.pipeline.sparse_inputs import blocks_of, linears_of, moments_of
from toolkit.pipeline.sparse_quality import Quality, answers_of, quality_of
from toolkit.pipeline.sparse_source import SKIPPED, Labelled, SparseSource
from toolkit.progress import Progress, silent
from toolkit.sparse import Moments, Pattern, magnitude, second_order, wanda

__all__ = ["REPORT", "SparseOptions", "SparseReport", "sparsify"]

REPORT = "sparsity.json"
Method = Literal["magnitude", "wanda", "second-order"]


@dataclass(frozen=True)
class SparseOptions:
    """How to prune.

    Attributes:
        pattern: What is kept.
        method: By what.
        calibration: Real inputs, ``.npz`` or ``.jsonl``; of no use to magnitude.
        evaluate: Inputs to judge by, with ``label`` where there are classes; None for none.
        layers: Shell patterns of tensors to prune.
        skip: Of those to leave.
        damp: For second order: share of the Hessian's mean diagonal that is added to it.
    """

    pattern: Pattern
    method: Method
    calibration: Path | None = None
    evaluate: Path | None = None
    layers: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = SKIPPED
    damp: float = 0.01


@dataclass(frozen=True)
class SparseReport:
    """What was done.

    Attributes:
        pattern: As text.
        method: By what.
        rows: Rows of calibration that a layer read; 0 for magnitude.
        tensors: Error of each layer's output relative to it (of its weights, for magnitude).
        left: Tensors that were asked for and left dense, and why.
        quality: Before and after; None without data to judge by.
    """

    pattern: str
    method: str
    rows: int
    tensors: Mapping[str, float]
    left: Mapping[str, str]
    quality: Quality | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def sparsify(
    what: SparseSource, out: Path, options: SparseOptions, progress: Progress = silent
) -> SparseReport:
    """Prune a checkpoint and write it, in one step when all is done.

    The zeros are the masks: nothing else is stored, and ``toolkit.sparse.Masks`` reads them back.

    Args:
        what: The checkpoint.
        out: A folder for a folder, a file for a file; neither may exist.
        options: How.
        progress: Told of every block.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        MergeError: If nothing can be pruned.
        RecipeError: If calibration is needed and missing, or does not fit.
        BundleError: If ``out`` exists or cannot be written.
    """
    refuse_existing(out)
    names, left = _fitting(what, options)
    if options.method != "magnitude" and options.calibration is None:
        raise RecipeError(
            f"{options.method} weighs weights by what layers read, and no inputs are named",
            hint="--calibration data.npz or texts.jsonl; --method magnitude needs none",
        )
    pruner = _Pruner(what, options, progress)
    if options.method == "magnitude":
        pruner.by_magnitude(names)
    else:
        left |= pruner.by_inputs(names)
    with new_checkpoint(out) as partial:
        _write(what, pruner.made, partial)
        quality = pruner.judge(partial)
        report = SparseReport(
            str(options.pattern), options.method, pruner.rows, pruner.errors, left, quality
        )
        if what.is_folder:
            text = json.dumps(report.to_json(), indent=2)
            (partial / REPORT).write_text(text + "\n", encoding="utf-8")
    return report


def _fitting(what: SparseSource, options: SparseOptions) -> tuple[list[str], dict[str, str]]:
    names, left = [], {}
    for name in what.chosen(options.layers, options.skip):
        width = what.checkpoint.tensors[name][1].shape[what.axis]
        if options.pattern.fits(width):
            names.append(name)
        else:
            left[name] = f"sums over {width} weights, no multiple of {options.pattern.m}"
    if not names:
        raise MergeError(
            f"{what.path} has no matrix to prune to {options.pattern} among those asked for",
            hint=next(iter(left.values()), "--layers and --skip are patterns of tensor names"),
        )
    return names, left


class _Pruner:
    """What pruning has made so far: new weights by name, in the type of the checkpoint."""

    def __init__(self, what: SparseSource, options: SparseOptions, progress: Progress) -> None:
        self._what, self._options, self._progress = what, options, progress
        self.made: dict[str, Tensor] = {}
        self.errors: dict[str, float] = {}
        self.rows = 0
        self._held: Sequence[Labelled] = ()
        self._before: list[Tensor] = []

    def by_magnitude(self, names: Sequence[str]) -> None:
        """Tensor by tensor, without a model."""
        if self._options.evaluate is not None:
            self._look(self._model())
        tensors = _Reader(self._what)
        for done, name in enumerate(names):
            self._progress("prune", done, len(names))
            dense = tensors.read(name)
            new = self._turned(magnitude(self._turned(dense.float()), self._options.pattern))
            self._keep(name, dense, new, None)
        self._progress("prune", len(names), len(names))

    def by_inputs(self, names: Sequence[str]) -> dict[str, str]:
        """Block by block: later blocks are calibrated on what the pruned ones say.

        Gives the tensors that no linear layer reads, and so says.
        """
        options = self._options
        assert options.calibration is not None
        model = self._model()
        self._look(model)
        source = self._what.source(options.calibration)
        cases = [one.case for one in self._what.cases(options.calibration, source)]
        layers = linears_of(model, self._what.checkpoint)
        used = [name for name in layers if name in set(names)]
        blocks = blocks_of(used)
        tensors = _Reader(self._what)
        for done, block in enumerate(blocks):
            self._progress("prune", done, len(blocks))
            own = {name: layers[name] for name in block}
            kind: Literal["norms", "gram"] = "norms" if options.method == "wanda" else "gram"
            moments = moments_of(model, own, cases, kind)
            for name, layer in own.items():
                if moments[name].total is not None:
                    self._prune(name, layer, moments[name], tensors.read(name))
        self._progress("prune", len(blocks), len(blocks))
        reached = set(self.made)
        return {
            name: "no linear layer that was run reads it" for name in names if name not in reached
        }

    def judge(self, path: Path) -> Quality | None:
        """Run the checkpoint that was written."""
        if not self._held:
            return None
        model = self._what.source(self._options.evaluate, path).load()
        return quality_of(self._before, answers_of(model, self._held), self._held)

    def _model(self) -> torch.nn.Module:
        return self._what.source(self._options.calibration or self._options.evaluate).load()

    def _look(self, model: torch.nn.Module) -> None:
        """What the dense model says to the inputs that it is judged by."""
        if self._options.evaluate is not None:
            source = self._what.source(self._options.evaluate)
            self._held = self._what.cases(self._options.evaluate, source)
            self._before = answers_of(model, self._held)

    @torch.no_grad()
    def _prune(self, name: str, layer: torch.nn.Module, seen: Moments, stored: Tensor) -> None:
        options, weight = self._options, layer.weight
        assert isinstance(weight, torch.nn.Parameter)
        dense = self._turned(weight.detach())
        if options.method == "wanda":
            new = wanda(dense, seen.norms, options.pattern)
        else:
            assert seen.total is not None
            new = second_order(dense, seen.total, options.pattern, options.damp)
        self._keep(name, stored, self._turned(new), seen)
        weight.copy_(self.made[name].to(weight.dtype))
        self.rows = max(self.rows, seen.rows)

    def _keep(self, name: str, dense: Tensor, new: Tensor, seen: Moments | None) -> None:
        self.made[name] = new.to(dense.dtype).contiguous()
        off = self._turned(self.made[name].double() - dense.double())
        whole = self._turned(dense.double())
        if seen is not None and seen.total is not None:
            total = seen.total.double()
            weighs = torch.diag(total) if total.dim() == 1 else total
            lost, scale = (float(((x @ weighs) * x).sum()) for x in (off, whole))
        else:
            lost, scale = float(off.square().sum()), float(whole.square().sum())
        self.errors[name] = (max(lost, 0.0) / max(scale, 1e-300)) ** 0.5

    def _turned(self, weight: Tensor) -> Tensor:
        """[out, in] of a checkpoint's weight, and back."""
        return weight.T if self._what.axis == 0 else weight


class _Reader:
    """Tensors of a checkpoint, one at a time."""

    def __init__(self, what: SparseSource) -> None:
        self._what = what

    def read(self, name: str) -> Tensor:
        from safetensors import safe_open  # noqa: PLC0415

        file, _ = self._what.checkpoint.tensors[name]
        with safe_open(file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor


def _write(what: SparseSource, made: Mapping[str, Tensor], out: Path) -> None:
    """The checkpoint with new weights, a shard in memory at a time, and what lies beside it."""
    files = what.checkpoint.files
    if not what.is_folder:
        _write_file(files[0], made, out)
        return
    out.mkdir()
    for file in files:
        _write_file(file, made, out / file.name)
    copy_beside(what.path, out, {*(file.name for file in files), REPORT})


def _write_file(src: Path, made: Mapping[str, Tensor], out: Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    with safe_open(src, framework="pt") as opened:
        names = list(opened.keys())
        tensors = {name: made[name] if name in made else opened.get_tensor(name) for name in names}
        save_file(tensors, out, metadata=opened.metadata())
