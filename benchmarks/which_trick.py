"""Merge, distil, ensemble, experts, 2:4, int8: the same digits, one table.

python -m benchmarks which_trick
python -m benchmarks.which_trick --page docs/which-trick.md   # and the page with its plot
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import interleaved
from benchmarks.rows import Row
from toolkit.pipeline import (
    SparseOptions,
    SparseSource,
    distil,
    export_recipe,
    plan_distillation,
    sparsify,
)
from toolkit.recipe import load_recipe
from toolkit.sparse import Pattern

__all__ = ["Trick", "run", "tricks"]

SAMPLES = Path(__file__).parent.parent / "samples"
INPUTS = """
inputs: {image: {type: "float32[batch, 1, 8, 8]", low: 0, high: 1}}
shapes: {batch: [1, 16, 64]}
parity: {cases: 4}
"""
MEMBER = '{{factory: "digits_models:mlp", weights: {0}.safetensors, name: {0}}}'
# A process of its own: what loading a graph and running it once adds to a bare ONNX Runtime.
_PEAK = """
import json, re, sys, numpy, onnxruntime
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = peak()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"image": numpy.zeros((16, 1, 8, 8), "float32")})
print(json.dumps(peak() - before))
"""


@dataclass(frozen=True)
class Trick:
    """One way to ship, as it was measured.

    Attributes:
        name: In words.
        accuracy: On 1,297 digits that nobody trained on.
        bytes: Of the graph and its data.
        milliseconds: Median of a batch of 16 in ONNX Runtime.
        memory: Bytes that loading and running it once adds to a process.
    """

    name: str
    accuracy: float
    bytes: int
    milliseconds: float
    memory: int


def run(*, quick: bool) -> list[Row]:
    """Four figures of each; no bounds, because each buys something else."""
    rows = []
    for one in tricks(quick=quick):
        rows += [
            Row(f"{one.name}: accuracy", one.accuracy, ""),
            Row(f"{one.name}: size", one.bytes / 1e3, "kB"),
            Row(f"{one.name}: latency, batch 16", one.milliseconds, "ms"),
            Row(f"{one.name}: memory", one.memory / 1e6, "MB"),
        ]
    return rows


def tricks(*, quick: bool) -> list[Trick]:
    """Train three classifiers from one beginning, and ship them in every way."""
    sys.path.insert(0, str(SAMPLES))
    train = importlib.import_module("digits_train")
    experts = importlib.import_module("digits_moe")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("digits_models.py", "digits_moe_models.py"):
            shutil.copy(SAMPLES / "recipes" / file, folder)
        held = _train(train, folder, epochs=2 if quick else train.EPOCHS)
        seen, _ = train.split(0)
        model = experts.train(seen, 0, balanced=True, epochs=2 if quick else experts.EPOCHS)
        save_file(model.state_dict(), folder / "moe.safetensors")
        paths = dict(_exported(folder, epochs=2 if quick else 40))
        return _measured(paths, held, repeats=31 if quick else 301)


def _train(train: Any, folder: Path, epochs: int) -> Any:
    """Writes a, b and c, fine-tunes of one model on halves of the digits, and their average."""
    seen, held = train.split(0)
    base = train.train(train.MEMBERS["mlp"], seen, seed=0, epochs=epochs // 3 or 1)
    weights = {}
    for seed, name in enumerate("abc", start=1):
        rows = torch.randperm(len(seen.label), generator=torch.Generator().manual_seed(seed))[:350]
        part = train.Digits(seen.image[rows], seen.label[rows])
        start = partial(_copy, train.MEMBERS["mlp"], base.state_dict())
        weights[name] = train.train(start, part, seed=seed, epochs=epochs).state_dict()
        save_file(weights[name], folder / f"{name}.safetensors")
    average = {key: sum(w[key] for w in weights.values()) / 3 for key in weights["a"]}
    save_file(average, folder / "merged.safetensors")
    np.savez(folder / "seen.npz", image=seen.image.numpy(), label=seen.label.numpy())
    return held


def _copy(make: Callable[[], torch.nn.Module], weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = make()
    model.load_state_dict(weights)
    return model


def _exported(folder: Path, epochs: int) -> Iterator[tuple[str, Path]]:
    one = f"model: {MEMBER.format('a')}"
    members = ", ".join(MEMBER.format(name) for name in "abc")
    all_three = f"model: {{ensemble: {{combine: linear, members: [{members}]}}}}"
    yield "one of three", _export(folder, "one", one)
    yield "merged (average)", _export(folder, "merge", f"model: {MEMBER.format('merged')}")
    yield "ensemble of three", _export(folder, "ensemble", all_three)
    student = _distilled(folder, members, epochs)
    yield "ensemble, distilled into one", _export(folder, "student", f"model: {student}")
    mixture = 'model: {factory: "digits_moe_models:moe", weights: moe.safetensors}'
    yield "mixture, 2 of 8 experts", _export(folder, "mixture", mixture)
    what = SparseSource(folder / "a.safetensors", "digits_models:mlp", folder)
    options = SparseOptions(Pattern(2, 4), "second-order", folder / "seen.npz")
    sparsify(what, folder / "sparse.safetensors", options)
    yield "one, 2:4", _export(folder, "two_four", f"model: {MEMBER.format('sparse')}")
    int8 = "export: {precision: int8, calibration: seen.npz}"
    yield "one, int8", _export(folder, "one_int8", f"{one}\n{int8}")
    yield "ensemble, int8", _export(folder, "ensemble_int8", f"{all_three}\n{int8}")


def _distilled(folder: Path, members: str, epochs: int) -> str:
    path, out = folder / "distil.yaml", folder / "distilled"
    path.write_text(f"""
model:
  distill:
    student: {{factory: "digits_models:mlp", weights: merged.safetensors}}
    teachers: {{ensemble: {{combine: linear, members: [{members}]}}}}
    data: {{path: seen.npz}}
    training: {{epochs: {epochs}, batch: 32, rate: 0.001, device: cpu}}
{INPUTS}""")
    recipe = load_recipe(path, allow_code=True)
    planned = plan_distillation(recipe.model, recipe, folder, recipe.input_specs())
    distil(planned, out, work=folder / "work")
    shutil.copy(next(out.glob("*.safetensors")), folder / "student.safetensors")
    assert load_file(folder / "student.safetensors")
    return MEMBER.format("student")


def _export(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    budget = "" if "int8" not in text else "  # held to the default budget"
    path.write_text(f"{text}\n{INPUTS}{budget}\n")
    outcome = export_recipe(load_recipe(path, allow_code=True), folder, folder / f"{name}_out")
    return outcome.folder / "model.onnx"


def _measured(paths: dict[str, Path], held: Any, repeats: int) -> list[Trick]:
    images, labels = held.image.numpy(), held.label.numpy()
    sessions = {name: _session(path) for name, path in paths.items()}
    calls = {
        name: partial(session.run, None, {"image": images[:16]})
        for name, session in sessions.items()
    }
    seconds = interleaved(calls, repeats, warmup=5)
    found = []
    for name, path in paths.items():
        batches = np.array_split(images, 32)
        said = np.concatenate(
            [sessions[name].run(None, {"image": b})[0].argmax(axis=1) for b in batches]
        )
        files = (path, path.with_name(path.name + ".data"))
        size = sum(file.stat().st_size for file in files if file.exists())
        command = [sys.executable, "-c", _PEAK, path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        accuracy, time = float((said == labels).mean()), float(np.median(seconds[name])) * 1e3
        found.append(Trick(name, accuracy, size, time, json.loads(done.stdout)))
    return found


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def table(found: Sequence[Trick]) -> str:
    """In Markdown."""
    lines = ["| | accuracy | kB | ms, batch 16 | MB to run |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.accuracy:.1%} | {one.bytes / 1e3:.0f} | {one.milliseconds:.3f} | "
        f"{one.memory / 1e6:.1f} |"
        for one in found
    ]
    return "\n".join(lines)


def draw(found: Sequence[Trick], path: Path) -> None:
    """Accuracy over latency; the area of a point is its size in bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "trick", "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(7, 4.2), layout="constrained")
        axes = drawn.subplots()
        for one in found:
            place = one.milliseconds, 100 * one.accuracy
            axes.scatter(*place, s=one.bytes / 500, alpha=0.5)
            axes.annotate(one.name, place, xytext=(6, 4), textcoords="offset points")
        axes.set_xlabel("milliseconds for 16 digits, ONNX Runtime, one thread")
        axes.set_ylabel("accuracy on held-out digits, %")
        axes.set_xmargin(0.25)
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    bare = re.sub(r"\s*<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    path.write_text(bare, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure every trick and rewrite the page.")
    parser.add_argument("--page", type=Path, default=Path("docs/which-trick.md"))
    page = parser.parse_args().page
    found = tricks(quick=False)
    draw(found, page.parent / "figures" / "which_trick.svg")
    text = page.read_text(encoding="utf-8")
    start, end = text.index("<!-- table -->"), text.index("<!-- end -->")
    page.write_text(f"{text[:start]}<!-- table -->\n{table(found)}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
