"""One case of a proof as a folder that shows its failure with numpy and ONNX Runtime alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np

from toolkit.bundle import open_bundle
from toolkit.errors import BundleError, ParityError
from toolkit.feeds import Case
from toolkit.pipeline.bundled import bundle_plan
from toolkit.pipeline.plan import Plan
from toolkit.pipeline.proof_cases import proof_cases, recorded
from toolkit.pipeline.reference import output_specs, reference_runner
from toolkit.progress import Progress, silent
from toolkit.runtime import Array, OrtRunner, Outputs, Runner

__all__ = ["Bound", "SavedCase", "save_case"]

# PyTorch's own error in the model's precision, this many times over, is still healthy.
_HEALTHY = 4.0
_EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

_SCRIPT = '''\
"""Case {case!r}: model.onnx in ONNX Runtime against PyTorch in float64."""
import os, sys
import numpy as np, onnxruntime as ort
os.chdir(os.path.dirname(os.path.abspath(__file__)))
limits = {limits}  # root mean square, largest
wanted = np.load("expected.npz")
session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
found = dict(zip(limits, session.run(list(limits), dict(np.load("inputs.npz")))))
off = {{n: np.where(found[n] == wanted[n], 0, np.abs(found[n] * 1.0 - wanted[n])) for n in limits}}
errors = {{n: ((np.sum(e * e) / max(e.size, 1)) ** 0.5, e.max(initial=0)) for n, e in off.items()}}
print(*(f"{{n}}: max error {{e:.4g}}, limit {{limits[n][1]:.4g}}" for n, (_, e) in errors.items()))
sys.exit(not all(e <= limit for n in limits for e, limit in zip(errors[n], limits[n])))
'''


@dataclass(frozen=True)
class Bound:
    """An output's absolute errors beside the largest that are healthy."""

    output: str
    rms: float
    rms_limit: float
    max: float
    max_limit: float

    @property
    def held(self) -> bool:
        """Whether both errors are healthy; NaN is not."""
        return self.rms <= self.rms_limit and self.max <= self.max_limit

    @property
    def excess(self) -> float:
        """The larger error over its limit; infinite for NaN."""
        pairs = ((self.rms, self.rms_limit), (self.max, self.max_limit))
        if not all(error <= limit for error, limit in pairs if not limit):
            return float("inf")
        found = [error / limit for error, limit in pairs if limit]
        return float("inf") if any(np.isnan(found)) else max(found, default=0.0)


@dataclass(frozen=True)
class SavedCase:
    """A case on disk.

    Attributes:
        folder: Holds ``inputs.npz``, ``expected.npz`` (float64), ``found.npz``, the model and
            ``reproduce.py``, which exits 1 where a bound is not held.
        case: The case's name; of a case of many steps, such as decoding, also the worst step.
        bounds: One for each output.
    """

    folder: Path
    case: str
    bounds: tuple[Bound, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within its bounds."""
        return all(bound.held for bound in self.bounds)


def save_case(  # noqa: PLR0913  (each is a different thing a user may say)
    folder: Path,
    which: str,
    out: Path,
    progress: Progress = silent,
    *,
    allow_code: bool = False,
    root: Path | None = None,
) -> SavedCase:
    """Run one case of a bundle's proof and write it to ``out``, whole or not at all.

    Args:
        folder: The bundle; its files are taken as they lie there.
        which: The case's name, or its number in ``parity.json``, from 1.
        out: The folder to write; it must not exist, and not lie in the bundle.
        progress: Told of every runner.
        allow_code: Whether factories may run.
        root: Where the recipe's models lie, if not where they lay at export.

    Raises:
        BundleError: If ``folder`` is no bundle, or ``out`` exists or cannot be written.
        ParityError: If there is no such case.
    """
    bundle = open_bundle(folder, verify=False)
    _check_target(folder, out)
    plan = bundle_plan(bundle, allow_code=allow_code, root=root)
    case = _choose(proof_cases(plan), which)
    names = [spec.name for spec in output_specs(plan)]
    steps = recorded(case, OrtRunner(bundle.model))
    results: list[dict[str, Outputs]] = [{} for _ in steps]
    runners: dict[str, Runner] = {
        "expected": reference_runner(plan, "float64"),
        "healthy": reference_runner(plan, plan.recipe.export.arithmetic),
        "found": OrtRunner(bundle.model),
    }
    for done, (role, runner) in enumerate(runners.items()):
        progress(f"run case: {runner.name}", done, len(runners))
        with runner as run:
            for step, feeds in zip(results, steps, strict=True):
                outputs = run(feeds)
                step[role] = {name: outputs[name] for name in names}
    number, bounds = _worst([tuple(_bound(n, step, plan) for n in names) for step in results])
    title = case.name if len(steps) == 1 else f"{case.name}, step {number + 1} of {len(steps)}"
    _write(out, bundle.model, steps[number], results[number], _script(title, bounds))
    return SavedCase(out, title, bounds)


def _worst(steps: Sequence[tuple[Bound, ...]]) -> tuple[int, tuple[Bound, ...]]:
    """The step farthest over its bounds, or nearest to them, and its number."""
    return max(enumerate(steps), key=lambda step: max(bound.excess for bound in step[1]))


def _check_target(bundle: Path, out: Path) -> None:
    if out.exists():
        raise BundleError(f"{out} exists", hint="choose another folder with --case-out")
    if out.resolve().is_relative_to(bundle.resolve()):
        raise BundleError(f"{out} lies in the bundle, whose files are fixed by its manifest")


def _choose(every: Sequence[Case], which: str) -> Case:
    for number, case in enumerate(every, 1):
        if which in {case.name, str(number)}:
            return case
    shown = "; ".join(case.name for case in every[:3])
    raise ParityError(
        f"there is no case {which!r}, only 1 to {len(every)}",
        hint=f"a number or a name of the cases in parity.json, such as: {shown}",
    )


def _bound(name: str, results: Mapping[str, Outputs], plan: Plan) -> Bound:
    expected = results["expected"][name]
    eps = _EPS[plan.recipe.export.arithmetic] if expected.dtype.kind == "f" else 0.0
    size = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    scale = float(np.sqrt(np.square(size).sum() / max(size.size, 1)))
    floors = eps * scale, eps * float(size.max(initial=0.0))
    healthy, found = (_errors(results[role][name], expected) for role in ("healthy", "found"))
    rms_limit, max_limit = (
        float(f"{_HEALTHY * max(error, floor):.3g}")
        for error, floor in zip(healthy, floors, strict=True)
    )
    return Bound(name, found[0], rms_limit, found[1], max_limit)


def _errors(found: Array, expected: Array) -> tuple[float, float]:
    """Root mean square and largest, absolute; NaN where one side is not a number."""
    have, want = found.astype(np.float64), expected.astype(np.float64)
    if have.shape != want.shape:
        return float("nan"), float("nan")
    with np.errstate(invalid="ignore"):
        off = np.where(have == want, 0.0, np.abs(have - want))
    return float(np.sqrt(np.square(off).sum() / max(off.size, 1))), float(off.max(initial=0.0))


def _script(title: str, bounds: Sequence[Bound]) -> str:
    limits = {bound.output: (bound.rms_limit, bound.max_limit) for bound in bounds}
    return _SCRIPT.format(case=title, limits=limits)


def _write(
    out: Path,
    model: Path,
    feeds: Mapping[str, Array],
    results: Mapping[str, Outputs],
    script: str,
) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as staging:
            draft = Path(staging) / out.name
            draft.mkdir()
            for role, arrays in (("inputs", feeds), *results.items()):
                if role != "healthy":
                    _write_arrays(draft / f"{role}.npz", arrays)
            # Copies: ONNX readers refuse data files with hard links, ours among them.
            for file in (model, model.with_name(model.name + ".data")):
                if file.is_file():
                    shutil.copyfile(file, draft / file.name)
            (draft / "reproduce.py").write_text(script, encoding="utf-8")
            os.replace(draft, out)  # noqa: PTH105  (Path.replace reads as if out existed)
    except OSError as error:
        raise BundleError(f"cannot write {out}: {error.strerror}") from error


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """What ``np.savez`` writes; its keyword arguments leave no room for an input named ``file``."""
    with ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
