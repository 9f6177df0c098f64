"""Plugins for TensorRT: the kernels of gating and dispatch, compiled into an engine or a library.

``plugin: aot`` puts the kernels into the engine as PTX, so nothing is deployed beside it;
``plugin: library`` leaves them to a shared library that is loaded with the engine; ``plugin: none``
lets TensorRT run the operators' bodies. ``toolkit.plugins.aot`` registers the first kind.
"""

from toolkit.plugins.nvrtc import Nvrtc, find_nvrtc
from toolkit.plugins.ptx import AOT_RELEASE, Gating, dispatch_ptx, gating_ptx
from toolkit.plugins.sources import SOURCES

__all__ = [
    "AOT_RELEASE",
    "SOURCES",
    "Gating",
    "Nvrtc",
    "dispatch_ptx",
    "find_nvrtc",
    "gating_ptx",
]
