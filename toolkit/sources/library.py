"""transformers, an optional extra that is slow to import: loaded when asked for, and silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit.checkpoint import open_checkpoint
from toolkit.errors import CapabilityError, CheckpointError

__all__ = ["first_line", "holds_experts", "leave_file", "read_config", "transformers_library"]


def transformers_library() -> Any:
    """The package, without progress bars and warnings.

    Raises:
        CapabilityError: If it is not installed.
    """
    try:
        import transformers  # noqa: PLC0415  (an optional extra, and slow to import)
    except ImportError as error:
        raise CapabilityError(
            "Hugging Face checkpoints need the transformers package, which is not installed",
            hint="pip install 'ensemble-to-engine[hf]'",
        ) from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def read_config(folder: Path) -> Any:
    """The configuration object of a checkpoint folder; code in the folder is not run.

    Raises:
        CheckpointError: If the folder or its model type cannot be used.
    """
    open_checkpoint(folder)  # refuses pickles, escapes and malformed files first
    auto = transformers_library().AutoConfig
    try:
        return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: config.json is not one transformers can read: {first_line(error)}",
            hint="models that need code of their own can be used through a factory",
        ) from error


def holds_experts(module: nn.Module) -> bool:
    """Whether it is a layer that runs through transformers' experts interface."""
    return hasattr(module, "has_gate") and hasattr(module, "is_transposed")


def leave_file(model: nn.Module) -> None:
    """Copy what still lies in the mapped checkpoint, where most of the weights were copied anyway.

    transformers joins the matrices of a layer's experts into tensors of their own. The few others
    would keep the whole file mapped, with all of its pages that were read.
    """
    layers = [module for module in model.modules() if holds_experts(module)]
    joined = {id(p): p.nbytes for layer in layers for p in layer.parameters()}
    others = [p for p in model.parameters() if id(p) not in joined]
    if sum(joined.values()) > sum(p.nbytes for p in others):
        for parameter in others:
            parameter.data = parameter.data.clone(memory_format=torch.preserve_format)


def first_line(error: BaseException) -> str:
    """What an error says first; libraries go on for pages."""
    return str(error).strip().split("\n")[0]
