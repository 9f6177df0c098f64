"""Says what a path holds: a checkpoint, an ONNX file, a bundle, a recipe or an engine."""

from toolkit.inspection.found import Inspection, Section
from toolkit.inspection.paths import inspect_path
from toolkit.inspection.plans import engine_facts
from toolkit.inspection.zeros import inspect_zeros

__all__ = [
    "Inspection",
    "Section",
    "engine_facts",
    "inspect_path",
    "inspect_zeros",
]
