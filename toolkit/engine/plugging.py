"""What ``plugin`` means for a build: the graph made ready for plugins, and plugins made ready."""

from __future__ import annotations

import ctypes
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import graphs
from toolkit.engine.api import Module
from toolkit.errors import CapabilityError, PluginError
from toolkit.plugins.nvrtc import driver_version, find_nvrtc

__all__ = ["LIBRARY_VARIABLE", "Plugin", "load_plugins", "prepare"]

Plugin = Literal["none", "aot", "library"]

# Not a key of the recipe: a recipe may come from a stranger, and a library is code.
LIBRARY_VARIABLE = "TOOLKIT_PLUGIN_LIBRARY"


def prepare(source: Path, plugin: Plugin, out: Path) -> Path:
    """The graph to build from: ``source`` itself, or ``out`` made ready for plugins.

    Raises:
        GraphError: If there is no operator for a plugin, or one that its kernels do not take.
    """
    if plugin == "none":
        return source
    ready = graphs.GatingToPlugins(split=plugin == "aot")
    graphs.rewrite(source, [ready], out, required=[ready.name])
    return out


def load_plugins(trt: ModuleType, plugin: Plugin, capability: str | None) -> list[str]:
    """Bring plugins into TensorRT's registry, where its parser finds them.

    Args:
        trt: The module ``tensorrt``.
        plugin: Which.
        capability: Of the GPU that the engine is for, such as ``"9.0"``.

    Returns:
        Paths of the libraries that the plan can carry: those that TensorRT asks for plugins. One
        that registers its plugins by itself has to lie beside the plan.

    Raises:
        CapabilityError: If a compiler, a library or a release of TensorRT is missing.
        PluginError: If the library cannot be loaded.
    """
    if plugin == "aot":
        _register_aot(trt, capability)
    return _load_library(cast("Module", trt)) if plugin == "library" else []


def _register_aot(trt: ModuleType, capability: str | None) -> None:
    nvrtc = find_nvrtc(driver_version())
    if nvrtc is None or capability is None:
        lacking = "NVRTC that its driver can load the code of" if nvrtc is None else "an NVIDIA GPU"
        raise CapabilityError(
            f"kernels cannot be put into an engine: this machine lacks {lacking}",
            hint="toolkit doctor says which is installed and which fits",
        )
    from toolkit.plugins.aot import register  # noqa: PLC0415 - loads numpy, which others need not

    plugin = importlib.import_module("tensorrt.plugin")
    register(trt, plugin, nvrtc, f"compute_{capability.replace('.', '')}")


def _load_library(trt: Module) -> list[str]:
    named = os.environ.get(LIBRARY_VARIABLE, "")
    if not Path(named).is_file():
        raise CapabilityError(
            f"found {LIBRARY_VARIABLE}={named!r}, wanted the plugin library's path",
            hint="build it with: make plugin TENSORRT_ROOT=...",
        )
    path = str(Path(named).absolute())
    try:
        # A library registers what it holds when it is loaded, or has an entry for TensorRT to ask.
        library = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise PluginError(f"the plugin library does not load: {error}") from error
    if not hasattr(library, "getCreators"):
        return []
    if trt.get_plugin_registry().load_library(path) is None:
        raise PluginError(
            f"TensorRT {trt.__version__} refuses the plugin library {named}",
            hint="a library is for one major release of TensorRT",
        )
    return [path]
