"""Making a mixture: plan, check, read prompts, write, describe."""

from __future__ import annotations

import time
from pathlib import Path

from toolkit.merge.description import Notes, write_description, write_surroundings
from toolkit.merge.folder import JOURNAL, Journal, check_target, writing
from toolkit.merge.models import Library
from toolkit.merge.moe.config import PROMPT_MODES, MoeConfig
from toolkit.merge.moe.gates import degenerate, gate_rows
from toolkit.merge.moe.likeness import check_experts
from toolkit.merge.moe.planning import make_moe_plan
from toolkit.merge.options import DEFAULTS, MergeOptions
from toolkit.merge.outcome import MergeReport
from toolkit.merge.plan import MergePlan
from toolkit.merge.write import fingerprint, write_weights
from toolkit.progress import Progress, silent

__all__ = ["make_moe", "plan_moe"]


def plan_moe(config: MoeConfig, options: MergeOptions = DEFAULTS) -> MergePlan:
    """Plan a mixture from headers alone.

    Raises:
        MergeError: If it cannot be made as asked.
        CheckpointError: If a model's files are damaged.
    """
    library = _library(options)
    try:
        return make_moe_plan(config, library, options.seed)
    finally:
        library.files.close()


def make_moe(
    config: MoeConfig,
    out: Path,
    options: MergeOptions = DEFAULTS,
    progress: Progress = silent,
) -> MergeReport:
    """Write a mixture as a new folder in Hugging Face's layout.

    Weights are streamed as in a merge. Gates of hidden states need the base in memory, in float32,
    while its prompts are read.

    Args:
        config: Which models, and how the gate begins.
        out: The folder; it appears when all is written.
        options: How.
        progress: Told prompts, then bytes read.

    Raises:
        MergeError: If it cannot be made as asked; nothing is left behind.
        CheckpointError: If a model's files are damaged.
    """
    started = time.perf_counter()
    check_target(out, force=options.force)
    library = _library(options)
    try:
        planned = make_moe_plan(config, library, options.seed)
        warnings = planned.warnings
        warnings += check_experts(planned.donor, planned.models, force=options.force)
        layers = int(planned.config["num_hidden_layers"])
        rows = gate_rows(config, planned.donor, layers, options.seed, progress)
        if config.gate_mode in PROMPT_MODES:
            warnings += tuple(degenerate(rows[:, : len(config.experts)]))
        made = make_moe_plan(config, library, options.seed, rows)
        with writing(out, force=options.force, resume=options.resume) as (partial, state):
            mark = fingerprint(made, options.shard_bytes)
            journal = Journal.open(state / JOURNAL, mark, resume=options.resume)
            written = write_weights(made, partial, journal, options, progress)
            write_surroundings(made, partial)
            write_description([config], made, written, partial, Notes(options.seed, warnings))
    finally:
        library.files.close()
    seconds = time.perf_counter() - started
    return MergeReport(out, made, written.findings, warnings, seconds)


def _library(options: MergeOptions) -> Library:
    return Library(options.folder or Path(), confined=options.confined)
