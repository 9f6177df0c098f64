"""The passes, composed explicitly: a new pass is a file here and a line in ``PASSES``."""

from __future__ import annotations

from collections.abc import Mapping

from graphs.passes.base import NearMiss, Pass, PassReport
from graphs.passes.deduplicate_initializers import DeduplicateInitializers
from graphs.passes.deduplicate_subgraphs import DeduplicateSubgraphs
from graphs.passes.experts import (
    ExpertsToBatched,
    ExpertsToConditionals,
    ExpertsToDense,
    ExpertsToNative,
    ExpertsToRows,
)
from graphs.passes.find_gating import FindGating
from graphs.passes.find_moe_blocks import FindMoeBlocks
from graphs.passes.mixed_precision import MixedPrecision
from graphs.passes.remove_unused_nodes import RemoveUnusedNodes
from graphs.passes.skip_gated_members import SkipGatedMembers
from graphs.passes.skip_silent_neurons import SkipSilentNeurons
from graphs.passes.strip_exporter_metadata import StripExporterMetadata

__all__ = ["PASSES", "NearMiss", "Pass", "PassReport"]

PASSES: Mapping[str, type[Pass]] = {
    DeduplicateInitializers.name: DeduplicateInitializers,
    DeduplicateSubgraphs.name: DeduplicateSubgraphs,
    ExpertsToBatched.name: ExpertsToBatched,
    ExpertsToConditionals.name: ExpertsToConditionals,
    ExpertsToDense.name: ExpertsToDense,
    ExpertsToNative.name: ExpertsToNative,
    ExpertsToRows.name: ExpertsToRows,
    FindGating.name: FindGating,
    FindMoeBlocks.name: FindMoeBlocks,
    MixedPrecision.name: MixedPrecision,
    RemoveUnusedNodes.name: RemoveUnusedNodes,
    SkipGatedMembers.name: SkipGatedMembers,
    SkipSilentNeurons.name: SkipSilentNeurons,
    StripExporterMetadata.name: StripExporterMetadata,
}
