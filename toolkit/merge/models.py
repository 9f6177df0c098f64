"""The models of a merge: folders, single files, adapters and earlier merges, by reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.checkpoint import open_checkpoint
from toolkit.errors import MergeError
from toolkit.merge.lora import adapted
from toolkit.merge.refusals import refuse_quantised
from toolkit.merge.tensors import FileTensor, OpenFiles, Tensor

__all__ = ["Library", "Model"]


@dataclass(frozen=True)
class Model:
    """A model's tensors, none of them read.

    Attributes:
        label: What messages and random draws call it.
        tensors: By name, in the order of the files.
        config: ``config.json``; empty where there is none.
        folder: Where tokenizer and other files lie; None in memory.
        files: The weight files.
    """

    label: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    files: tuple[Path, ...] = ()


class Library:
    """Opens each model once.

    Args:
        folder: Relative references are looked up here first, then in the working folder.
        confined: Refuse references that lead out of ``folder``.
        known: Models under a name of their own: earlier merges, or state dicts.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        confined: bool = False,
        known: Mapping[str, Model] | None = None,
    ) -> None:
        self.files = OpenFiles()
        self._folder = folder
        self._confined = confined
        self._known = dict(known or {})

    def add(self, name: str, model: Model) -> None:
        """Make a model known under a name."""
        self._known[name] = model

    def __getitem__(self, reference: str) -> Model:
        """Open a model, or ``model+adapter``.

        Raises:
            MergeError: If there is none, or it cannot be merged.
            CheckpointError: If its files are damaged.
        """
        if reference not in self._known:
            self._known[reference] = self._open(reference)
        return self._known[reference]

    def _open(self, reference: str) -> Model:
        name, plus, adapter = reference.partition("+")
        if plus and not self._is_path(reference):
            return self._adapted(reference, self[name], adapter)
        if self._folder is None:
            raise MergeError(
                f"there is no model {reference!r}", hint=f"models here: {', '.join(self._known)}"
            )
        return self.open_path(reference, self.locate(reference))

    def _is_path(self, reference: str) -> bool:
        """Whether the whole of a reference is a path, plus signs and all."""
        return self._folder is not None and (self._folder / reference).exists()

    def open_path(self, label: str, path: Path) -> Model:
        """Open a folder or a single file under a label."""
        checkpoint = open_checkpoint(path)
        dtypes = {name: entry.dtype for name, (_, entry) in checkpoint.tensors.items()}
        refuse_quantised(label, checkpoint.config, dtypes)
        tensors = {
            name: FileTensor(file, entry.start, entry.dtype, entry.shape, self.files)
            for name, (file, entry) in checkpoint.tensors.items()
        }
        return Model(label, tensors, checkpoint.config, checkpoint.folder, checkpoint.files)

    def _adapted(self, reference: str, base: Model, adapter: str) -> Model:
        if "+" in adapter:
            raise MergeError(f"model {reference!r} has two adapters, and one can be added")
        tensors = adapted(reference, base.tensors, self.locate(adapter), self.files)
        return Model(reference, tensors, base.config, base.folder, base.files)

    def locate(self, reference: str) -> Path:
        """The path a reference means.

        Raises:
            MergeError: If there is nothing, or it leads out of the folder of a confined config.
        """
        folder = self._folder or Path()
        path = folder / reference
        if self._confined:
            inside = path.resolve().is_relative_to(folder.resolve())
            if not inside or Path(reference).is_absolute():
                raise MergeError(
                    f"model {reference!r} leads out of the recipe's folder",
                    hint="put the model, or a link to it, beside the recipe",
                )
        for candidate in (path, Path(reference)) if not self._confined else (path,):
            if candidate.exists():
                return candidate
        raise MergeError(
            f"model {reference!r} is not a folder or file here; models are not downloaded",
            hint=_near(path),
        )


def _near(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"{parent} does not exist either; download the model and give its folder"
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())[:12]
    return f"folders beside it: {', '.join(names) or 'none'}"
