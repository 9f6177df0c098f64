"""Engines: ONNX to a serialized TensorRT or TensorRT-RTX plan, built in a process of its own."""

from toolkit.engine.build import build_engine, check_profiles
from toolkit.engine.options import TITLES, EngineOptions, Flavour
from toolkit.engine.refit import refit_engine, require_refit
from toolkit.engine.refusals import installed_version, refuse
from toolkit.engine.requirements import missing, require

__all__ = [
    "TITLES",
    "EngineOptions",
    "Flavour",
    "build_engine",
    "check_profiles",
    "installed_version",
    "missing",
    "refit_engine",
    "refuse",
    "require",
    "require_refit",
]
