"""Fine-tunes that share a frozen backbone: one graph against a session for each."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.fused_vs_members import in_a_process_of_its_own, time_runs
from benchmarks.measure import ratio, spread
from benchmarks.rows import Row
from graphs import Combination, Ensemble, Leaf, Weights, fuse
from toolkit.artifacts import DimRange
from toolkit.export import ExportOptions, export_source
from toolkit.feeds import make_feeds
from toolkit.sources import HuggingFaceSource

__all__ = ["run"]

# Of 24 layers 14 are left when 10 of 12 are shared, 24 / 14 = 1.71; of 4 x 12 layers 12 are left.
SPEED_2 = 1.6
SPEED_HEADS = 3.0
# Beside the weights there are the graph itself and the padding between tensors.
BYTES = 1.02


@dataclass(frozen=True)
class Case:
    """Fine-tunes of one BERT.

    Attributes:
        name: What the rows are called.
        count: How many.
        trained: What a fine-tune has of its own: parameters whose names start so.
        floor: The least speed over sessions that share one thread pool.
    """

    name: str
    count: int
    trained: tuple[str, ...]
    floor: float


@dataclass(frozen=True)
class Sentences:
    """Four rows of 64 tokens; ``runs`` in one timing."""

    source: HuggingFaceSource
    runs: int = 1

    def feeds(self) -> dict[str, np.ndarray]:
        """Seeded inputs."""
        dims = {"batch": 4, "sequence": 64}
        return make_feeds(self.source.inputs, dims, np.random.default_rng(0))


CASES = (
    Case(
        "2 fine-tunes, 10 of 12 layers frozen",
        2,
        ("bert.encoder.layer.10.", "bert.encoder.layer.11.", "bert.pooler.", "classifier."),
        SPEED_2,
    ),
    Case("4 heads on one backbone of 12 layers", 4, ("bert.pooler.", "classifier."), SPEED_HEADS),
)


def run(*, quick: bool) -> list[Row]:
    """Measure both cases on a BERT of 12 layers, width 256 (128 with ``quick``)."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            width, repeats = (128, 7) if quick else (256, 21)
            rows += measure(case, Path(folder), width, repeats)
    return rows


def measure(case: Case, folder: Path, width: int, repeats: int) -> list[Row]:
    """Export the fine-tunes, fuse them, and compare speed and bytes."""
    sources = [
        HuggingFaceSource(f"m{index}", path)
        for index, path in enumerate(fine_tunes(case, folder, width))
    ]
    shapes = {"batch": DimRange(1, 4, 8), "sequence": DimRange(2, 64, 128)}
    paths = [folder / f"{source.name}.onnx" for source in sources]
    for source, path in zip(sources, paths, strict=True):
        export_source(source, shapes, ExportOptions(), path)
    fused = folder / "fused.onnx"
    leaves = tuple(Leaf(path.stem, path) for path in paths)
    weights = (1 / len(leaves),) * len(leaves)
    fuse(Ensemble("bench", leaves, Combination("linear", "logits", weights, "logits")), fused)
    work = Sentences(sources[0])
    sharing, default = (
        in_a_process_of_its_own(partial(time_runs, fused, paths, work, repeats, shared=shared))
        for shared in (True, False)
    )
    fastest = ratio(sharing["members"], sharing["fused"])
    other = ratio(default["members"], default["fused"])
    name, times = case.name, sharing["fused"]
    return [
        Row(
            f"{name}: sessions / fused, all sharing one thread pool",
            fastest.median, "x", (fastest.low, fastest.high), floor=case.floor,
        ),
        Row(f"{name}: default sessions / fused", other.median, "x", (other.low, other.high)),
        Row(f"{name}: fused", statistics.median(times) * 1e3, "ms", spread(times, 1e3)),
        *_sizes(name, fused, paths),
    ]  # fmt: skip


def _sizes(name: str, fused: Path, members: Sequence[Path]) -> list[Row]:
    contents: Mapping[tuple[object, ...], int] = {
        (array.dtype.str, array.shape, array.tobytes()): array.nbytes
        for path in members
        for array in Weights(path).values()
    }
    stored, apart = _bytes(fused), sum(map(_bytes, members))
    nodes = [len(onnx.load(path, load_external_data=False).graph.node) for path in members]
    left = len(onnx.load(fused, load_external_data=False).graph.node)
    once = sum(contents.values())
    return [
        Row(f"{name}: bytes, fused / every different weight once", stored / once, "x", bound=BYTES),
        Row(f"{name}: bytes, fused / members' files", stored / apart, "x"),
        Row(f"{name}: nodes, fused / members'", left / sum(nodes), "x"),
    ]


def _bytes(path: Path) -> int:
    return path.with_name(path.name + ".data").stat().st_size


def fine_tunes(case: Case, folder: Path, width: int) -> list[Path]:
    """Write BERTs that differ in the parameters that were trained, and in no others."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=2000, hidden_size=width, num_hidden_layers=12, num_attention_heads=4,
        intermediate_size=4 * width, max_position_embeddings=128, num_labels=10,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    paths = []
    for index in range(case.count):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith(case.trained):
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
        paths.append(folder / f"fine_tune_{index}")
        model.save_pretrained(paths[-1])
    return paths
