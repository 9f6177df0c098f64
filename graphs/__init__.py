"""ONNX to ONNX: fuse many graphs into one, rewrite a graph by passes, describe a graph.

Every function takes and gives paths, so callers never hold a graph. Names are resolved on first
use: ``import graphs`` alone loads neither numpy nor onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from graphs.errors import GraphError

if TYPE_CHECKING:
    from graphs.apart import write_combination
    from graphs.comparing import Difference, differences
    from graphs.counting import Census, Origin, census, origins
    from graphs.description import Description, TensorInfo, describe
    from graphs.exposing import Exposure, expose
    from graphs.fusing import fuse
    from graphs.halves import half_misfit
    from graphs.lifting import lift
    from graphs.moe.cutting import cut_experts
    from graphs.moe.layers import ExpertLayer
    from graphs.moe.listing import expert_layers
    from graphs.moe.watching import WatchedRouter, watch_routers
    from graphs.near_miss import NearMiss
    from graphs.ops import CONTRACTS, Contract
    from graphs.outlining import NodeOutline, Outline, outline
    from graphs.passes import PASSES
    from graphs.passes.base import Pass, PassReport
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
    from graphs.passes.gating_to_plugins import GatingToPlugins
    from graphs.passes.mixed_precision import MixedPrecision
    from graphs.passes.remove_unused_nodes import RemoveUnusedNodes
    from graphs.passes.skip_gated_members import SkipGatedMembers
    from graphs.passes.skip_silent_neurons import SkipSilentNeurons
    from graphs.passes.strip_exporter_metadata import StripExporterMetadata
    from graphs.patching import WeightPatch
    from graphs.rewriting import rewrite
    from graphs.silent.cutting import cut_silent
    from graphs.silent.layers import SilentLayer, silent_layers
    from graphs.tensorrt.checking import Violation, check_tensorrt, is_known_version
    from graphs.tree import (
        Combination,
        Ensemble,
        Feed,
        Gate,
        Group,
        Leaf,
        Stack,
        Translation,
        Tree,
    )
    from graphs.weights import Weights
    from graphs.widening import round_constants, widen

__all__ = [
    "CONTRACTS",
    "PASSES",
    "Census",
    "Combination",
    "Contract",
    "DeduplicateInitializers",
    "DeduplicateSubgraphs",
    "Description",
    "Difference",
    "Ensemble",
    "ExpertLayer",
    "ExpertsToBatched",
    "ExpertsToConditionals",
    "ExpertsToDense",
    "ExpertsToNative",
    "ExpertsToRows",
    "Exposure",
    "Feed",
    "FindGating",
    "FindMoeBlocks",
    "Gate",
    "GatingToPlugins",
    "GraphError",
    "Group",
    "Leaf",
    "MixedPrecision",
    "NearMiss",
    "NodeOutline",
    "Origin",
    "Outline",
    "Pass",
    "PassReport",
    "RemoveUnusedNodes",
    "SilentLayer",
    "SkipGatedMembers",
    "SkipSilentNeurons",
    "Stack",
    "StripExporterMetadata",
    "TensorInfo",
    "Translation",
    "Tree",
    "Violation",
    "WatchedRouter",
    "WeightPatch",
    "Weights",
    "census",
    "check_tensorrt",
    "cut_experts",
    "cut_silent",
    "describe",
    "differences",
    "expert_layers",
    "expose",
    "fuse",
    "half_misfit",
    "is_known_version",
    "lift",
    "origins",
    "outline",
    "rewrite",
    "round_constants",
    "silent_layers",
    "watch_routers",
    "widen",
    "write_combination",
]

_HOMES = {
    "CONTRACTS": "graphs.ops",
    "Census": "graphs.counting",
    "Contract": "graphs.ops",
    "Origin": "graphs.counting",
    "census": "graphs.counting",
    "origins": "graphs.counting",
    "PASSES": "graphs.passes",
    "NearMiss": "graphs.near_miss",
    "Pass": "graphs.passes.base",
    "PassReport": "graphs.passes.base",
    "DeduplicateInitializers": "graphs.passes.deduplicate_initializers",
    "DeduplicateSubgraphs": "graphs.passes.deduplicate_subgraphs",
    "ExpertsToBatched": "graphs.passes.experts",
    "ExpertsToConditionals": "graphs.passes.experts",
    "ExpertsToDense": "graphs.passes.experts",
    "ExpertsToNative": "graphs.passes.experts",
    "ExpertsToRows": "graphs.passes.experts",
    "FindGating": "graphs.passes.find_gating",
    "FindMoeBlocks": "graphs.passes.find_moe_blocks",
    "GatingToPlugins": "graphs.passes.gating_to_plugins",
    "MixedPrecision": "graphs.passes.mixed_precision",
    "RemoveUnusedNodes": "graphs.passes.remove_unused_nodes",
    "SkipGatedMembers": "graphs.passes.skip_gated_members",
    "SkipSilentNeurons": "graphs.passes.skip_silent_neurons",
    "StripExporterMetadata": "graphs.passes.strip_exporter_metadata",
    "Description": "graphs.description",
    "TensorInfo": "graphs.description",
    "describe": "graphs.description",
    "Difference": "graphs.comparing",
    "differences": "graphs.comparing",
    "Exposure": "graphs.exposing",
    "expose": "graphs.exposing",
    "fuse": "graphs.fusing",
    "half_misfit": "graphs.halves",
    "WeightPatch": "graphs.patching",
    "lift": "graphs.lifting",
    "ExpertLayer": "graphs.moe.layers",
    "cut_experts": "graphs.moe.cutting",
    "expert_layers": "graphs.moe.listing",
    "WatchedRouter": "graphs.moe.watching",
    "watch_routers": "graphs.moe.watching",
    "NodeOutline": "graphs.outlining",
    "Outline": "graphs.outlining",
    "outline": "graphs.outlining",
    "Weights": "graphs.weights",
    "SilentLayer": "graphs.silent.layers",
    "silent_layers": "graphs.silent.layers",
    "cut_silent": "graphs.silent.cutting",
    "Violation": "graphs.tensorrt.checking",
    "check_tensorrt": "graphs.tensorrt.checking",
    "is_known_version": "graphs.tensorrt.checking",
    "rewrite": "graphs.rewriting",
    "round_constants": "graphs.widening",
    "widen": "graphs.widening",
    "write_combination": "graphs.apart",
    "Combination": "graphs.tree",
    "Ensemble": "graphs.tree",
    "Feed": "graphs.tree",
    "Gate": "graphs.tree",
    "Group": "graphs.tree",
    "Leaf": "graphs.tree",
    "Stack": "graphs.tree",
    "Tree": "graphs.tree",
    "Translation": "graphs.tree",
}


def __getattr__(name: str) -> object:
    """Import the module that defines ``name`` (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'graphs' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
