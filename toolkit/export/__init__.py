"""PyTorch → ONNX, one model at a time."""

from toolkit.export.exporter import ExportOptions, export_source
from toolkit.export.foreign import adopt_onnx

__all__ = ["ExportOptions", "adopt_onnx", "export_source"]
