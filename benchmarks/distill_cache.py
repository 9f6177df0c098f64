"""A step of training from kept targets against one with the teachers in memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from benchmarks.measure import interleaved, peak_memory, ratio, spread
from benchmarks.rows import Row
from toolkit.distill import (
    Batch,
    CachedTeacher,
    CacheKey,
    Compression,
    StudentOutputs,
    Teacher,
    WordLevel,
    row_mask,
    write_cache,
)
from toolkit.pipeline import make_plan
from toolkit.pipeline.teaching import live_teacher
from toolkit.recipe import load_recipe

__all__ = ["run"]

BOUND = 1.0
ROWS, LENGTH = 8, 64
HOW = Compression(64)
KEY = CacheKey({"teachers": "two"}, "tokens", {})
_RECIPE = """
model: {ensemble: {combine: linear, members: [{checkpoint: a}, {checkpoint: b}]}}
shapes: {batch: [1, 8, 8], sequence: [2, 64, 64]}
"""


def run(*, quick: bool) -> list[Row]:
    """Two Llama-shaped teachers, a student of a quarter of their width, 512 tokens a step."""
    width, vocabulary, repeats = (64, 2_000, 3) if quick else (384, 16_000, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, width, vocabulary)
        live, cached, student, batches = _loaded(folder, vocabulary)
        calls = {
            "live": _step(live, student, batches[0]),
            "cached": _step(cached, student, batches[0]),
            "student alone": _step(None, student, batches[0]),
        }
        seconds = interleaved(calls, repeats)
        rows = [
            Row.of("a step from kept targets / with teachers",
                   ratio(seconds["cached"], seconds["live"]), BOUND),
            *(
                Row(f"a step, {one}", statistics.median(times) * 1e3, "ms", spread(times, 1e3))
                for one, times in seconds.items()
            ),
        ]  # fmt: skip
        rows.append(Row("bytes of a kept row", cached.nbytes / cached.rows, "B"))
        del live, cached, student
        peaks = {kind: _peak(folder, kind, vocabulary) for kind in ("live", "cached")}
    rows += [
        Row(f"peak memory of a step, {kind}", peak / 1e6, "MB") for kind, peak in peaks.items()
    ]
    share = peaks["cached"] / peaks["live"]
    return [*rows, Row("peak memory from kept targets / with teachers", share, "x", bound=BOUND)]


def _config(width: int, vocabulary: int, layers: int) -> Any:
    return hf.LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, vocab_size=vocabulary,
        max_position_embeddings=LENGTH, initializer_range=0.1,
    )  # fmt: skip


def _write(folder: Path, width: int, vocabulary: int) -> None:
    hf.utils.logging.disable_progress_bar()
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        hf.LlamaForCausalLM(_config(width, vocabulary, 6)).save_pretrained(folder / name)
    torch.manual_seed(2)
    hf.LlamaForCausalLM(_config(width // 4, vocabulary, 3)).save_pretrained(folder / "student")
    (folder / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
    batches = _batches(vocabulary)
    write_cache(folder / "cache", _live(folder), batches, KEY, compression=HOW)


def _batches(vocabulary: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(vocabulary, (2 * ROWS, LENGTH), generator=generator)
    return [
        {
            "input_ids": ids[start : start + ROWS],
            "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.int64),
            "index": torch.arange(start, start + ROWS),
        }
        for start in (0, ROWS)
    ]


def _live(folder: Path) -> Teacher:
    return live_teacher(make_plan(load_recipe(folder / "recipe.yaml"), folder), "causal-lm")


def _cached(folder: Path) -> CachedTeacher:
    return CachedTeacher(folder / "cache", KEY, "causal-lm", HOW)


def _student(folder: Path) -> Any:
    return hf.LlamaForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)


def _loaded(folder: Path, vocabulary: int) -> tuple[Teacher, CachedTeacher, Any, list[Batch]]:
    return _live(folder), _cached(folder), _student(folder), _batches(vocabulary)


def _speaker(student: Any) -> Callable[[Batch], StudentOutputs]:
    def speak(batch: Batch) -> StudentOutputs:
        found = student(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        return StudentOutputs(found.logits.flatten(0, 1), {}, row_mask("causal-lm", batch))

    return speak


def _step(teacher: Teacher | None, student: Any, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the student, and what the teacher takes before it."""
    speak, objective = _speaker(student), WordLevel()

    def step() -> None:
        student.zero_grad()
        targets = None if teacher is None else teacher.targets(batch)
        said = speak(batch)
        if targets is None:
            assert said.logits is not None
            loss = said.logits.logsumexp(-1).mean()
        else:
            loss = objective(said, targets, batch).mean
        torch.autograd.backward(loss)

    return step


_PROGRAM = """
import sys
from pathlib import Path
import torch
from benchmarks import distill_cache as own
folder, kind, vocabulary = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
teacher = own._live(folder) if kind == "live" else own._cached(folder)
own._step(teacher, own._student(folder), own._batches(vocabulary)[0])()
"""


def _peak(folder: Path, kind: str, vocabulary: int) -> int:
    """Bytes, of a process of its own that makes one step."""
    command = [sys.executable, "-c", _PROGRAM, str(folder), kind, str(vocabulary)]
    found = peak_memory(command)
    if found.code:
        subprocess.run(command, check=True)
    return found.peak
