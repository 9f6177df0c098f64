"""Engines: ONNX to a serialized TensorRT or TensorRT-RTX plan, built in a process of its own."""

from toolkit.engine.build import build_engine
from toolkit.engine.options import EngineOptions, Flavour
from toolkit.engine.requirements import missing, require

__all__ = ["EngineOptions", "Flavour", "build_engine", "missing", "require"]
