"""What a member costs that does not run: the pass skip_gated_members in ONNX Runtime."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import parser, save

from benchmarks.measure import Ratio, interleaved, ratio, spread
from benchmarks.members import Member
from benchmarks.rows import Row
from graphs import Combination, Ensemble, Gate, Leaf, SkipGatedMembers, fuse
from toolkit.artifacts import DimRange, TensorSpec
from toolkit.export import ExportOptions, export_source
from toolkit.feeds import make_feeds
from toolkit.sources import FactorySource

__all__ = ["run"]

BOUND = 0.03
MEMBERS = 4
BATCH, LENGTH = 4, 64


def run(*, quick: bool) -> list[Row]:
    """Four transformer encoders and a gate that wants one of them."""
    vocabulary, width, depth = (1000, 128, 2) if quick else (8000, 384, 4)
    kwargs = {"vocabulary": vocabulary, "width": width, "depth": depth, "classes": 10}
    member = Member("benchmarks.models:encoder", kwargs)
    with tempfile.TemporaryDirectory() as folder:
        return measure(member, vocabulary, Path(folder), repeats=31 if quick else 61)


def measure(member: Member, vocabulary: int, folder: Path, repeats: int) -> list[Row]:
    """Build the graphs and time them in turns.

    The cost of a skipped member is what three of them add to an ensemble of the one that runs, a
    third of it, over the time of one member alone. The gate's scores are an input here: a gate
    runs whether members are skipped or not.
    """
    spec = TensorSpec.parse("input_ids", f"int64[batch, {LENGTH}]", low=0, high=vocabulary)
    paths = [_export(member, spec, folder, seed) for seed in range(MEMBERS)]
    one, plain, skipping = (folder / f"{name}.onnx" for name in ("one", "plain", "skipping"))
    fuse(_ensemble(paths[:1], folder), one)
    fuse(_ensemble(paths, folder), plain)
    step = SkipGatedMembers()
    fuse(_ensemble(paths, folder), skipping, passes=[step], required=[step.name])
    feeds = make_feeds([spec], {"batch": BATCH}, np.random.default_rng(0))
    first = np.tile(np.eye(MEMBERS, dtype=np.float32)[0], (BATCH, 1))
    everyone = np.eye(MEMBERS, dtype=np.float32)[np.arange(BATCH) % MEMBERS]
    calls = {
        "member": _call(paths[0], feeds),
        "one of one": _call(one, {**feeds, "scores_1": first[:, :1]}),
        "one of four": _call(skipping, {**feeds, f"scores_{MEMBERS}": first}),
        "four of four": _call(skipping, {**feeds, f"scores_{MEMBERS}": everyone}),
        "plain": _call(plain, {**feeds, f"scores_{MEMBERS}": first}),
    }
    seconds = interleaved(calls, repeats, warmup=3)
    name = f"{MEMBERS} encoders, batch {BATCH} x {LENGTH} tokens"
    alone = seconds["member"]
    return [
        Row.of(f"{name}: cost of a skipped member / member", _cost(seconds), BOUND),
        Row.of(f"{name}: 1 of {MEMBERS} runs / member", ratio(seconds["one of four"], alone)),
        Row.of(
            f"{name}: 1 of {MEMBERS} runs / no If", ratio(seconds["one of four"], seconds["plain"])
        ),
        Row.of(f"{name}: all run / no If", ratio(seconds["four of four"], seconds["plain"])),
        Row(f"{name}: member", statistics.median(alone) * 1e3, "ms", spread(alone, 1e3)),
    ]


def _cost(seconds: Mapping[str, Sequence[float]]) -> Ratio:
    """Of one skipped member in units of a member's time, round by round."""
    rounds = zip(seconds["one of four"], seconds["one of one"], seconds["member"], strict=True)
    costs = [(four - one) / (MEMBERS - 1) / alone for four, one, alone in rounds]
    return Ratio(statistics.median(costs), min(costs), max(costs))


def _ensemble(paths: Sequence[Path], folder: Path) -> Ensemble:
    count = len(paths)
    leaves = tuple(Leaf(f"member_{path.stem}", path) for path in paths)
    gate = Gate(Leaf("gate", _scores(count, folder)), "scores", 1)
    return Ensemble("bench", leaves, Combination("linear", "logits", (), "logits"), gate=gate)


def _scores(count: int, folder: Path) -> Path:
    """A gate that passes its input on."""
    path, kind = folder / f"gate_{count}.onnx", f"float[batch, {count}]"
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"gate ({kind} scores_{count}) => ({kind} scores) {{ scores = Identity (scores_{count}) }}"
    )
    save(parser.parse_model(text), path)
    return path


def _export(member: Member, spec: TensorSpec, folder: Path, seed: int) -> Path:
    weights, path = folder / f"{seed}.safetensors", folder / f"{seed}.onnx"
    member.write(weights, seed)
    source = FactorySource(str(seed), member.factory, weights, (spec,), kwargs=member.kwargs)
    export_source(source, {"batch": DimRange(1, 16, 64)}, ExportOptions(), path)
    return path


def _call(path: Path, feeds: Mapping[str, np.ndarray]) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    # Threads that spin after one session's run would take time from the next session's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, ["logits"], dict(feeds))
