"""From a recipe to a bundle, and from a bundle back to its proof and to why it fails."""

from toolkit.pipeline.apart import package_apart
from toolkit.pipeline.bisect import Bisection, bisect_passes
from toolkit.pipeline.compressing import (
    StorageReport,
    compress_checkpoint,
    restore_checkpoint,
)
from toolkit.pipeline.distil_report import DistilReport
from toolkit.pipeline.distilling import Distillation, distil, plan_distillation
from toolkit.pipeline.explain import explain_bundle
from toolkit.pipeline.export import Outcome, export_recipe, publish_path
from toolkit.pipeline.fit import fit_recipe
from toolkit.pipeline.fit_parts import FitOptions
from toolkit.pipeline.fit_report import FitReport
from toolkit.pipeline.members import export_members
from toolkit.pipeline.plan import Plan, make_plan, soup_members
from toolkit.pipeline.prove import prove_bundle
from toolkit.pipeline.refit import RefitOptions, refit_bundle
from toolkit.pipeline.reproduce import SavedCase, save_case
from toolkit.pipeline.sensitivity import Sensitivity, measure_sensitivity
from toolkit.pipeline.soups import make_soup_of
from toolkit.pipeline.sparse_source import SKIPPED, SparseSource
from toolkit.pipeline.sparsifying import SparseOptions, SparseReport, sparsify

__all__ = [
    "SKIPPED",
    "Bisection",
    "DistilReport",
    "Distillation",
    "FitOptions",
    "FitReport",
    "Outcome",
    "Plan",
    "RefitOptions",
    "SavedCase",
    "Sensitivity",
    "SparseOptions",
    "SparseReport",
    "SparseSource",
    "StorageReport",
    "bisect_passes",
    "compress_checkpoint",
    "distil",
    "explain_bundle",
    "export_members",
    "export_recipe",
    "fit_recipe",
    "make_plan",
    "make_soup_of",
    "measure_sensitivity",
    "package_apart",
    "plan_distillation",
    "prove_bundle",
    "publish_path",
    "refit_bundle",
    "restore_checkpoint",
    "save_case",
    "soup_members",
    "sparsify",
]
