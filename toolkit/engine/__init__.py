"""Engines: ONNX to a serialized TensorRT or TensorRT-RTX plan, built in a process of its own."""

from toolkit.engine.build import build_engine
from toolkit.engine.options import EngineOptions, Flavour
from toolkit.engine.process import Progress
from toolkit.engine.requirements import missing

__all__ = ["EngineOptions", "Flavour", "Progress", "build_engine", "missing"]
