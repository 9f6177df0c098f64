"""A merge or mixture of experts as a source: made once, in a folder that lives as the plan does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.merge import MergeOptions, MergeReport, from_mapping, merge_configs
from toolkit.merge.moe import from_mapping as moe_from_mapping
from toolkit.merge.moe import make_moe
from toolkit.pipeline.scratch import in_scratch
from toolkit.recipe import MergeModel, MoeModel
from toolkit.sources import HuggingFaceSource, Part

__all__ = ["MadeSource", "merged_source"]


@dataclass(frozen=True)
class MadeSource(HuggingFaceSource):
    """A checkpoint that was merged, or taught, for a recipe.

    Attributes:
        how: What it was made by.
        parts: The files that it was made from.
    """

    how: str = ""
    parts: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """What it was made from, not the passing result."""
        return self.parts

    @property
    def description(self) -> str:
        """How it was made, and what it is."""
        return f"{self.how}, {super().description}"


def merged_source(
    model: MergeModel | MoeModel, folder: Path, seed: int, part: Part | None = None
) -> MadeSource:
    """Merge ``model``, whose paths are read against and confined to ``folder``.

    ``part`` is that of an encoder-decoder model.

    Raises:
        MergeError: If the models cannot be merged.
        CheckpointError: If a model's files are damaged.
    """

    def merge(scratch: Path) -> MadeSource:
        report, how = _made(model, scratch / model.name, folder, seed)
        parts = {path for part in report.plan.models.values() for path in part.files}
        return MadeSource(
            model.name, report.out, model.task, model.cache, part, how, tuple(sorted(parts))
        )

    return in_scratch(merge)


def _made(
    model: MergeModel | MoeModel, out: Path, folder: Path, seed: int
) -> tuple[MergeReport, str]:
    options = MergeOptions(seed=seed, confined=True, folder=folder)
    if isinstance(model, MergeModel):
        report = merge_configs([from_mapping(model.merge)], out, options)
        return report, f"{report.plan.method} merge"
    config = moe_from_mapping(model.moe)
    return make_moe(config, out, options), f"mixture of {len(config.experts)} experts"
