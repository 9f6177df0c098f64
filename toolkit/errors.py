"""Every error a user can meet.

``ToolkitError``
 ├─ ``RecipeError``       the recipe says something that cannot be built
 ├─ ``CheckpointError``   a weight file or model folder cannot be used
 ├─ ``MergeError``        models cannot be merged as asked
 ├─ ``ExportError``       PyTorch could not be turned into ONNX
 ├─ ``EngineError``       an engine could not be built or read
 │   └─ ``PluginError``   a plugin's kernels cannot be compiled or do not take an operator
 ├─ ``RefitError``        new weights cannot take the place of the old ones in a graph
 ├─ ``BundleError``       an output folder cannot be written or read
 ├─ ``PackageError``      a bundle cannot be packaged, or a model repository not be read
 ├─ ``ParityError``       the artefact does not compute what PyTorch computes   (exit 3)
 ├─ ``CapabilityError``   this machine lacks what was asked for                 (exit 4)
 └─ ``IntegrityError``    files differ from their manifest                      (exit 5)

``Interrupted``, a ``KeyboardInterrupt``, is Ctrl-C that left work to go on from   (exit 130).

``graphs.GraphError`` is the graph package's own and has the same two fields; the command line
treats it alike. A message says what was found and what was wanted; the hint says what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BundleError",
    "CapabilityError",
    "CheckpointError",
    "EngineError",
    "ExportError",
    "IntegrityError",
    "Interrupted",
    "MergeError",
    "PackageError",
    "ParityError",
    "PluginError",
    "RecipeError",
    "RefitError",
    "ToolkitError",
]


class ToolkitError(Exception):
    """A failure with a cause the user can act on.

    Attributes:
        message: One line: what was found and what was wanted.
        hint: What to do about it, or the names that exist; empty when the message says it all.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RecipeError(ToolkitError):
    """The recipe says something that cannot be built."""


class CheckpointError(ToolkitError):
    """A weight file or model folder cannot be used."""


class MergeError(ToolkitError):
    """Models cannot be merged as asked."""


class ExportError(ToolkitError):
    """PyTorch could not be turned into ONNX."""


class EngineError(ToolkitError):
    """An engine could not be built or read."""


class PluginError(EngineError):
    """A plugin's kernels cannot be compiled or do not take an operator."""


class RefitError(ToolkitError):
    """New weights cannot take the place of the old ones in a graph."""


class BundleError(ToolkitError):
    """An output folder cannot be written or read."""


class PackageError(ToolkitError):
    """A bundle cannot be packaged, or a model repository cannot be read."""


class ParityError(ToolkitError):
    """The artefact does not compute what PyTorch computes."""

    exit_code = 3


class CapabilityError(ToolkitError):
    """This machine lacks what was asked for: a GPU, TensorRT, a package."""

    exit_code = 4


class IntegrityError(ToolkitError):
    """Files on disk differ from what their manifest recorded."""

    exit_code = 5


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where work was kept; everywhere else nothing is left behind.

    Attributes:
        hint: What was kept and how to go on.
    """

    exit_code: ClassVar[int] = 130

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint
