"""Scores of a module that need no code: accuracy on labelled arrays, perplexity of text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toolkit.checkpoint import open_checkpoint
from toolkit.errors import MergeError

__all__ = ["LABELS", "Accuracy", "Evaluator", "Perplexity", "read_arrays", "read_texts"]

Array = npt.NDArray[Any]

LABELS = ("labels", "label", "y")
_MAX_TEXT_BYTES = 1 << 30


class Evaluator(Protocol):
    """Scores modules; larger is better.

    Attributes:
        metric: What the score is.
    """

    @property
    def metric(self) -> str:
        """See the class."""

    def score(self, module: nn.Module) -> float:
        """Score a module that takes inputs by keyword and returns a tuple, logits first."""


@dataclass(frozen=True)
class Accuracy:
    """The share of examples whose largest logit is at their label.

    Attributes:
        arrays: Inputs by the names ``forward`` takes, and the labels (``labels``, ``label`` or
            ``y``), whole numbers ``[examples]``.
        batch: Examples per call.
    """

    arrays: Mapping[str, Array] = field(repr=False)
    batch: int = 256
    metric: str = "accuracy"

    @classmethod
    def from_file(cls, path: Path, batch: int = 256) -> Accuracy:
        """Read labelled arrays from ``.npz`` or ``.safetensors``.

        Raises:
            MergeError: If there are no labels, or as many as examples of an input.
        """
        arrays = read_arrays(path)
        name = next((name for name in LABELS if name in arrays), "")
        if not name or not np.issubdtype(arrays[name].dtype, np.integer):
            raise MergeError(
                f"{path} holds {', '.join(arrays)}, and no whole numbers under labels, label or y"
            )
        counts = {key: len(array) for key, array in arrays.items() if array.ndim}
        if len(set(counts.values())) != 1 or len(arrays) < 2 or not counts[name]:
            raise MergeError(f"{path} holds different numbers of examples: {counts}")
        return cls(arrays, batch)

    def score(self, module: nn.Module) -> float:
        """Run all examples."""
        name = next(name for name in LABELS if name in self.arrays)
        labels = torch.from_numpy(np.asarray(self.arrays[name], np.int64))
        inputs = {k: torch.from_numpy(v) for k, v in self.arrays.items() if k != name}
        right = 0
        with torch.inference_mode():
            for start in range(0, len(labels), self.batch):
                part = {k: v[start : start + self.batch] for k, v in inputs.items()}
                found = module(**part)[0].argmax(dim=-1)
                right += int((found == labels[start : start + self.batch]).sum())
        return right / len(labels)


@dataclass(frozen=True)
class Perplexity:
    """Minus the perplexity of texts under a causal language model.

    ``exp`` of the mean, over all predicted tokens, of ``-log p(token | those before it)``. A text
    longer than ``window`` is read in windows that share nothing.

    Attributes:
        texts: Token numbers of each text, ``int64[tokens]``.
        window: Most tokens at a time.
    """

    texts: tuple[Array, ...] = field(repr=False)
    window: int = 512
    metric: str = "minus perplexity"

    @classmethod
    def from_file(cls, path: Path, tokenizer: Path, window: int = 512) -> Perplexity:
        """Read a text file, or JSON lines with ``text``, and split it with a ``tokenizer.json``.

        Raises:
            MergeError: If a file cannot be read, or no text has two tokens.
        """
        texts = tuple(_tokens(read_texts(path), tokenizer))
        if not texts:
            raise MergeError(f"{path} has no text of two tokens or more")
        return cls(texts, window)

    def score(self, module: nn.Module) -> float:
        """Run all texts."""
        total, count = 0.0, 0
        with torch.inference_mode():
            for tokens in self._windows():
                ids = torch.from_numpy(tokens)[None]
                logits = module(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
                losses = nn.functional.cross_entropy(
                    logits[0, :-1].double(), ids[0, 1:], reduction="sum"
                )
                total, count = total + float(losses), count + len(tokens) - 1
        return -math.exp(min(total / count, 700.0))

    def _windows(self) -> Iterator[Array]:
        for text in self.texts:
            for start in range(0, len(text), self.window):
                part = text[start : start + self.window]
                if len(part) > 1:
                    yield part


def read_arrays(path: Path) -> dict[str, Array]:
    """Arrays by name, from ``.npz`` (without pickles) or ``.safetensors``.

    Raises:
        MergeError: If it is neither.
    """
    if path.suffix == ".safetensors":
        checkpoint = open_checkpoint(path)
        return {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise MergeError(f"{path} is no .npz or .safetensors of plain arrays: {error}") from error


def read_texts(path: Path) -> list[str]:
    """Texts of a ``.jsonl`` (``{"text": …}`` per line), or the whole of another file.

    Raises:
        MergeError: If it cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise MergeError(f"{path} has more than {_MAX_TEXT_BYTES:,} bytes")
        content = path.read_text(encoding="utf-8")
        if path.suffix != ".jsonl":
            return [content]
        return [str(json.loads(line)["text"]) for line in content.splitlines() if line.strip()]
    except OSError as error:
        raise MergeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MergeError(f'{path} is not lines of {{"text": …}}: {error!r}') from error


def _tokens(texts: list[str], tokenizer: Path) -> Iterator[Array]:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (an extra: only perplexity needs it)
    except ImportError as error:
        raise MergeError(
            "perplexity needs the tokenizers library", hint="pip install ensemble-to-engine[hf]"
        ) from error
    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    if not path.is_file():
        raise MergeError(f"{tokenizer} has no tokenizer.json")
    made = Tokenizer.from_file(str(path))
    for text in texts:
        ids = np.array(made.encode(text).ids, np.int64)
        if len(ids) > 1:
            yield ids
