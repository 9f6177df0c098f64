"""``toolkit merge``: plan, check, write, describe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import MergeError
from toolkit.merge.config import MergeConfig, read_documents, validated
from toolkit.merge.description import Notes, write_description, write_surroundings
from toolkit.merge.folder import JOURNAL, Journal, check_target, writing
from toolkit.merge.models import Library, Model
from toolkit.merge.moe import MoeConfig, is_moe, make_moe, plan_moe
from toolkit.merge.moe import from_mapping as moe_from_mapping
from toolkit.merge.options import DEFAULTS, MergeOptions
from toolkit.merge.outcome import MergeReport
from toolkit.merge.plan import MergePlan
from toolkit.merge.planning import make_plan
from toolkit.merge.relatedness import check_related
from toolkit.merge.stages import in_order
from toolkit.merge.tensors import HeaderOnly
from toolkit.merge.write import Written, fingerprint, write_weights
from toolkit.progress import Progress, silent

__all__ = ["merge", "merge_configs", "plan", "plan_configs"]


def plan(config: Path, options: MergeOptions = DEFAULTS) -> MergePlan:
    """Plan the merge of a config file from headers alone.

    Args:
        config: YAML in mergekit's grammar, or mergekit-moe's.
        options: Seed and where models are.

    Raises:
        MergeError: If it cannot be merged as asked.
        CheckpointError: If a model's files are damaged.
    """
    found, located = _load(config), _located(config, options)
    if isinstance(found, MoeConfig):
        return plan_moe(found, located)
    return plan_configs(found, located)


def merge(
    config: Path,
    out: Path,
    options: MergeOptions = DEFAULTS,
    progress: Progress = silent,
) -> MergeReport:
    """Merge as a config file says, into a new folder in Hugging Face's layout.

    Args:
        config: YAML in mergekit's grammar, or mergekit-moe's.
        out: The folder; it appears when all is written.
        options: How.
        progress: Told bytes read.

    Raises:
        MergeError: If it cannot be merged as asked; nothing is left behind.
        CheckpointError: If a model's files are damaged.
    """
    found, located = _load(config), _located(config, options)
    if isinstance(found, MoeConfig):
        return make_moe(found, out, located, progress)
    return merge_configs(found, out, located, progress)


def _load(config: Path) -> list[MergeConfig] | MoeConfig:
    documents = read_documents(config)
    if len(documents) == 1 and is_moe(documents[0]):
        return moe_from_mapping(documents[0], str(config))
    if any(isinstance(document, dict) and "model" in document for document in documents):
        raise MergeError(
            f"{config} is a recipe, and the configuration of a merge was wanted",
            hint="give what stands under merge or moe in a file of its own; that is a recipe too",
        )
    return validated(documents, str(config))


def _located(config: Path, options: MergeOptions) -> MergeOptions:
    return options if options.folder else replace(options, folder=config.parent)


def plan_configs(configs: Sequence[MergeConfig], options: MergeOptions = DEFAULTS) -> MergePlan:
    """The plan of the last stage; earlier ones are planned on the way, and stand in by header."""
    library = _library(options)
    try:
        for config in in_order(configs):
            last = make_plan(config, library, options.seed)
            if config.name:
                library.add(config.name, _virtual(config.name, last))
    finally:
        library.files.close()
    return last


def merge_configs(
    configs: Sequence[MergeConfig],
    out: Path,
    options: MergeOptions = DEFAULTS,
    progress: Progress = silent,
) -> MergeReport:
    """Merge documents that were read before; see ``merge``."""
    started = time.perf_counter()
    check_target(out, force=options.force)
    ordered = in_order(configs)
    plan_configs(configs, options)  # all that headers can tell, before anything is written
    run = _Run(_library(options), options, progress)
    try:
        with writing(out, force=options.force, resume=options.resume) as (partial, state):
            for stage in ordered[:-1]:
                run.stage(stage, state / f"stage-{stage.name}")
            last, written, warnings = run.write(ordered[-1], partial, state)
            write_surroundings(last, partial)
            write_description(ordered, last, written, partial, Notes(options.seed, warnings))
    finally:
        run.library.files.close()
    seconds = time.perf_counter() - started
    return MergeReport(out, last, written.findings, warnings, seconds)


def _library(options: MergeOptions) -> Library:
    return Library(options.folder or Path(), confined=options.confined)


def _virtual(name: str, plan: MergePlan) -> Model:
    """A merge that is not made yet, as a model whose tensors cannot be read."""
    tensors = {o.name: HeaderOnly(o.dtype, o.shape) for o in plan.outputs}
    return Model(name, tensors, plan.config, plan.donor.folder)


@dataclass(frozen=True)
class _Run:
    library: Library
    options: MergeOptions
    progress: Progress

    def stage(self, config: MergeConfig, folder: Path) -> None:
        """Make one intermediate model: weights, config and tokenizer, and nothing about it."""
        name = config.name or ""
        folder.mkdir(parents=True, exist_ok=True)
        made, _, _ = self.write(config, folder, folder)
        write_surroundings(made, folder)
        if not made.config:  # models that are single files have none, and folders must have one
            (folder / "config.json").write_text("{}", encoding="utf-8")
        self.library.add(name, self.library.open_path(name, folder))

    def write(
        self, config: MergeConfig, folder: Path, state: Path
    ) -> tuple[MergePlan, Written, tuple[str, ...]]:
        """Plan one document, check its models and write the weights."""
        made = make_plan(config, self.library, self.options.seed)
        warnings = (*made.warnings, *check_related(made, force=self.options.force))
        mark = fingerprint(made, self.options.shard_bytes)
        journal = Journal.open(state / JOURNAL, mark, resume=self.options.resume)
        return made, write_weights(made, folder, journal, self.options, self.progress), warnings
