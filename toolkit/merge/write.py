"""Writing the shards of a plan into a folder, going on from finished ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit._version import __version__
from toolkit.merge.execute import Execution
from toolkit.merge.folder import Journal
from toolkit.merge.methods.base import Findings
from toolkit.merge.options import MergeOptions
from toolkit.merge.plan import MergePlan, OutputTensor
from toolkit.merge.shards import INDEX, Shard, index, lay_out
from toolkit.merge.trimming import trim_over_model
from toolkit.progress import Progress

__all__ = ["Written", "fingerprint", "write_weights"]


@dataclass(frozen=True)
class Written:
    """What writing the weights gave.

    Attributes:
        findings: By tensor.
        files: SHA-256 and size by file name.
    """

    findings: Mapping[str, Findings]
    files: Mapping[str, Mapping[str, Any]]


def fingerprint(plan: MergePlan, shard_bytes: int) -> str:
    """A hash of all that decides the bytes of the output."""
    outputs = [
        (o.name, o.dtype, o.shape, repr(o.method), [(s.model, s.name) for s in o.sources])
        for o in plan.outputs
    ]
    inputs = [
        (str(f), f.stat().st_size, f.stat().st_mtime_ns)
        for model in plan.models.values()
        for f in model.files
        if f.exists()
    ]
    text = json.dumps([__version__, shard_bytes, outputs, inputs])
    return hashlib.sha256(text.encode()).hexdigest()


def write_weights(
    plan: MergePlan,
    folder: Path,
    journal: Journal,
    options: MergeOptions,
    progress: Progress,
) -> Written:
    """Merge all tensors into safetensors files, and write their index if there are several."""
    shards = lay_out(list(plan.shards(options.shard_bytes)))
    for shard in shards:
        if journal.shards.get(shard.file) and not journal.finished(
            folder, shard.file, shard.nbytes
        ):
            del journal.shards[shard.file]
    left = [shard for shard in shards if shard.file not in journal.shards]
    total = sum(output.nbytes_read for shard in left for output in shard.outputs)
    execution = Execution(options.workers, total, progress, options.chunk)
    made = {o.name: o for o in (trim_over_model(plan.outputs, execution) if left else ())}
    tasks = [task for shard in left for task in _tasks(shard, made, folder, journal, execution)]
    try:
        execution.run(tasks)
    finally:
        for shard in left:
            shard.close()
    files = {
        s.file: {"sha256": journal.shards[s.file]["sha256"], "bytes": s.nbytes} for s in shards
    }
    if len(shards) > 1:
        text = json.dumps(index(shards), indent=2) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")
    return Written(_findings(shards, journal), files)


def _findings(shards: Sequence[Shard], journal: Journal) -> dict[str, Findings]:
    return {
        output.name: journal.shards[shard.file]["findings"][output.name]
        for shard in shards
        for output in shard.outputs
    }


def _tasks(
    shard: Shard,
    made: Mapping[str, OutputTensor],
    folder: Path,
    journal: Journal,
    execution: Execution,
) -> list[Callable[[], None]]:
    findings: dict[str, Findings] = {}

    def task(number: int) -> Callable[[], None]:
        def run() -> None:
            output = made[shard.outputs[number].name]
            sink = shard.sink(folder, number)
            findings[output.name] = execution.merge(output, sink)
            if shard.finish(number):
                shard.close()
                with execution.exclusive():
                    journal.add(shard.file, {"sha256": shard.sha256, "findings": findings})

        return run

    return [task(number) for number in range(len(shard.outputs))]
