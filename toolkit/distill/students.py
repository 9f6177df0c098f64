"""Students: where they begin, how they are asked, and the checkpoint they become."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from toolkit.artifacts import TensorSpec
from toolkit.bundle import hash_file
from toolkit.distill.layers import Layers
from toolkit.distill.speaking import FactorySpeaker, HuggingFaceSpeaker
from toolkit.distill.tokens import FolderTokenizer
from toolkit.distill.types import Needs, Task
from toolkit.errors import CheckpointError, RecipeError
from toolkit.sources import FactorySource
from toolkit.sources.heads import Pooling
from toolkit.sources.huggingface import TASKS, read_pooling
from toolkit.sources.library import first_line, read_config, transformers_library

__all__ = ["FactoryStudent", "HuggingFaceStudent", "Student", "task_of"]

_TASKS: Mapping[str, Task] = {
    "sequence-classification": "classification",
    "token-classification": "classification",
    "causal-lm": "causal-lm",
    "masked-lm": "masked-lm",
    "seq2seq-lm": "seq2seq-lm",
    "sentence-embedding": "embedding",
}
# What goes with a checkpoint besides configuration and weights.
_BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "chat_template.jinja", "modules.json", "1_Pooling/config.json",
)  # fmt: skip


def task_of(head: str) -> Task:
    """What a head of a checkpoint, such as ``sequence-classification``, is to distillation."""
    return _TASKS[head]


class Student(Protocol):
    """A model to be trained."""

    @property
    def task(self) -> Task:
        """What its outputs are."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes, by the names of a batch."""

    @property
    def tokenizer(self) -> FolderTokenizer | None:
        """Its tokenizer; None where it has none."""

    @property
    def digest(self) -> str:
        """Stands for everything that it begins with, but the seed."""

    def build(self, seed: int, needs: Needs) -> nn.Module:
        """The speaker that is trained, in training mode; its ``module`` is the model."""

    def save(self, speaker: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the model with the weights ``state``, named as in the speaker, as a checkpoint."""


@dataclass(frozen=True)
class HuggingFaceStudent:
    """A transformers model.

    Attributes:
        folder: The checkpoint it begins with; None for random weights.
        config: In place of ``folder``: ``model_type`` and what else its configuration says.
        layers: The layers of ``folder`` that are kept; None for all.
        head: A key of ``TASKS``, or ``auto``.
        tokenizer_folder: Whose tokenizer it has; None for that of ``folder``.
    """

    folder: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: Layers | None = None
    head: str = "auto"
    tokenizer_folder: Path | None = None

    @cached_property
    def configuration(self) -> Any:
        """The configuration object of the model that is trained.

        Raises:
            CheckpointError: If transformers cannot read it.
            RecipeError: If it has keys or values that the model type does not take.
        """
        if self.folder is not None:
            found = self._teacher
            return found if self.layers is None else self.layers.configuration(found)
        values = dict(self.config)
        kind = values.pop("model_type", None)
        if self.tokenizer is not None:
            values.setdefault("vocab_size", len(self.tokenizer))
            for role in ("bos", "eos", "pad"):
                values.setdefault(f"{role}_token_id", self.tokenizer.special(role))
        try:
            return transformers_library().AutoConfig.for_model(kind, **values)
        except Exception as error:
            raise RecipeError(
                f"no student can be made of the configuration: {first_line(error)}",
                hint="config: {model_type: llama, hidden_size: 64, …}, as in a config.json",
            ) from error

    @cached_property
    def _teacher(self) -> Any:
        assert self.folder is not None
        return read_config(self.folder)

    @cached_property
    def resolved_head(self) -> str:
        """The key of ``TASKS``.

        Raises:
            RecipeError: If neither ``head`` nor the configuration says.
        """
        if self.head != "auto":
            return self.head
        architecture = (self.configuration.architectures or [""])[0]
        for head, (suffixes, _) in TASKS.items():
            if architecture.endswith(suffixes):
                return head
        raise RecipeError("it is not said what the student is for",
                          hint="task: " + " | ".join(TASKS))  # fmt: skip

    @property
    def task(self) -> Task:
        """What its outputs are."""
        return _TASKS[self.resolved_head]

    @property
    def tokenizer(self) -> FolderTokenizer | None:
        """Its tokenizer; None where no folder has one."""
        folder = self.tokenizer_folder or self.folder
        found = None if folder is None else FolderTokenizer(folder)
        return found if found is not None and found.path.is_file() else None

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """``input_ids``, ``attention_mask``, types where the model has them, decoder inputs."""
        shape = ("batch", "sequence")
        config = self.configuration
        types = getattr(config, "type_vocab_size", None) or 0
        specs = [
            TensorSpec("input_ids", "int64", shape, low=0, high=config.vocab_size),
            TensorSpec("attention_mask", "int64", shape, low=0, high=2, role="mask"),
        ]
        if types > 1 and self.task != "seq2seq-lm":
            specs.append(TensorSpec("token_type_ids", "int64", shape, low=0, high=types))
        if self.task == "seq2seq-lm":
            decoded = ("batch", "target")
            high = config.vocab_size
            specs.append(TensorSpec("decoder_input_ids", "int64", decoded, low=0, high=high))
        return tuple(specs)

    @cached_property
    def digest(self) -> str:
        """Configuration, kept layers, and the checkpoint's files."""
        told = (self.configuration.to_dict(), self.layers, self.resolved_head)
        found = [json.dumps(told[0], sort_keys=True, default=str), repr(told[1:])]
        for folder in filter(None, (self.folder, self.tokenizer_folder)):
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            found += [f"{path.name}{hash_file(path).sha256}" for path in files]
        return hashlib.sha256("\0".join(found).encode()).hexdigest()

    def build(self, seed: int, needs: Needs) -> nn.Module:
        """The speaker that is trained; what no checkpoint gives begins at random, by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._module(any(name.startswith("attention.") for name in needs.student))
        names = [spec.name for spec in self.inputs]
        pooling = Pooling("mean", normalise=False) if self.folder is None else None
        if pooling is None:
            pooling = read_pooling(self.folder)  # type: ignore[arg-type]
        return HuggingFaceSpeaker(module, self.task, needs, names, pooling).train()

    def _module(self, attentions: bool) -> nn.Module:
        auto = getattr(transformers_library(), TASKS[self.resolved_head][1])
        # Only the plain formula gives attention probabilities.
        how = {"attn_implementation": "eager"} if attentions else {}
        made: nn.Module
        try:
            if self.folder is None:
                made = auto.from_config(self.configuration, dtype=torch.float32, **how)
                return made
            whole: nn.Module = auto.from_pretrained(
                self.folder, dtype=torch.float32, local_files_only=True,
                trust_remote_code=False, use_safetensors=True, **how,
            )  # fmt: skip
            if self.layers is None:
                return whole
            made = auto.from_config(self.configuration, dtype=torch.float32, **how)
        except (ValueError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"transformers cannot make the student: {first_line(error)}"
            ) from error
        made.load_state_dict(self.layers.state(whole.state_dict(), self._teacher))
        return made

    def save(self, speaker: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write a Hugging Face folder with its tokenizer."""
        module: Any = speaker.get_submodule("module")
        module.save_pretrained(folder, state_dict=_below(state))
        for source in filter(None, (self.folder, self.tokenizer_folder)):
            for name in _BESIDE:
                if (source / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source / name, folder / name)


@dataclass(frozen=True)
class FactoryStudent:
    """A module of one's own.

    Attributes:
        source: The callable and what it takes and gives; its ``weights`` are where it begins,
            unless it begins as the callable makes it.
        begins: Whether ``source.weights`` are read.
        kind: What its outputs are.
        tokenizer_folder: Whose tokenizer it reads texts with.
    """

    source: FactorySource
    begins: bool = False
    kind: Task = "classification"
    tokenizer_folder: Path | None = None

    @property
    def task(self) -> Task:
        """What its outputs are."""
        return self.kind

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``forward`` takes, by the shared names."""
        rename = self.source.rename
        return tuple(
            TensorSpec(rename.get(spec.name, spec.name), spec.dtype, spec.shape, low=spec.low,
                       high=spec.high, role=spec.role)
            for spec in self.source.inputs
        )  # fmt: skip

    @property
    def tokenizer(self) -> FolderTokenizer | None:
        """Its tokenizer, if one was named."""
        return None if self.tokenizer_folder is None else FolderTokenizer(self.tokenizer_folder)

    @cached_property
    def digest(self) -> str:
        """The callable, its arguments and code, and the weights it begins with."""
        files = [path for path in self.source.files if self.begins or path != self.source.weights]
        hashes = [(path.name, hash_file(path).sha256) for path in files]
        told = repr((self.source.target, sorted(self.source.kwargs.items()), hashes, self.kind))
        return hashlib.sha256(told.encode()).hexdigest()

    def build(self, seed: int, needs: Needs) -> nn.Module:
        """The speaker that is trained."""
        module = self.source.load() if self.begins else self.source.untrained(seed)
        rename = self.source.rename
        names = {spec.name: rename.get(spec.name, spec.name) for spec in self.source.inputs}
        return FactorySpeaker(module, needs, names, self.source.outputs).train()

    def save(self, speaker: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:  # noqa: ARG002
        """Write ``model.safetensors`` with the callable's own state dict."""
        from safetensors.torch import save_file  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        inner = _below(_below(state))
        whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in inner.items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def _below(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the submodule ``module``."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
