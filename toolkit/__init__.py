"""Turn many PyTorch models into one deployable graph, and prove that it computes the same.

Importing this package is cheap: torch, onnx, numpy and pydantic load with the modules that use
them.
"""

from toolkit._version import __version__

__all__ = ["__version__"]
