"""Engines: ONNX to a serialized TensorRT or TensorRT-RTX plan, built in a process of its own."""

from toolkit.engine.build import build_engine, check_profiles
from toolkit.engine.choices import TITLES, Flavour, Hardware, Pool, Refit, Verbosity
from toolkit.engine.fit import Needs, lacking_to_run, read_engine, require_fit
from toolkit.engine.header import PlanHeader, read_header
from toolkit.engine.limits import LACKING, lacking
from toolkit.engine.options import EngineOptions
from toolkit.engine.refit import refit_engine, require_refit
from toolkit.engine.refusals import installed_version, refuse
from toolkit.engine.requirements import missing, require

__all__ = [
    "LACKING",
    "TITLES",
    "EngineOptions",
    "Flavour",
    "Hardware",
    "Needs",
    "PlanHeader",
    "Pool",
    "Refit",
    "Verbosity",
    "build_engine",
    "check_profiles",
    "installed_version",
    "lacking",
    "lacking_to_run",
    "missing",
    "read_engine",
    "read_header",
    "refit_engine",
    "refuse",
    "require",
    "require_fit",
    "require_refit",
]
