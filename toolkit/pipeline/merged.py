"""A merge as a source: merged once, into a folder that lives as long as the plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.merge import MergeOptions, from_mapping, merge_configs
from toolkit.pipeline.scratch import in_scratch
from toolkit.recipe import MergeModel
from toolkit.sources import HuggingFaceSource, Part

__all__ = ["MergedSource", "merged_source"]


@dataclass(frozen=True)
class MergedSource(HuggingFaceSource):
    """A checkpoint that was merged for this plan.

    Attributes:
        method: ``merge_method``.
        parts: The files that were merged.
    """

    method: str = ""
    parts: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """What was merged, not the passing result."""
        return self.parts

    @property
    def description(self) -> str:
        """The method and what it gave."""
        return f"{self.method} merge, {super().description}"


def merged_source(
    model: MergeModel, folder: Path, seed: int, part: Part | None = None
) -> MergedSource:
    """Merge ``model``, whose paths are read against and confined to ``folder``.

    ``part`` is that of an encoder-decoder model.

    Raises:
        MergeError: If the models cannot be merged.
        CheckpointError: If a model's files are damaged.
    """

    def merge(scratch: Path) -> MergedSource:
        options = MergeOptions(seed=seed, confined=True, folder=folder)
        report = merge_configs([from_mapping(model.merge)], scratch / model.name, options)
        parts = {path for part in report.plan.models.values() for path in part.files}
        return MergedSource(
            model.name,
            report.out,
            model.task,
            model.cache,
            part,
            report.plan.method,
            tuple(sorted(parts)),
        )

    return in_scratch(merge)
