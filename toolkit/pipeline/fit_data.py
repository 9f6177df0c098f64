"""Held-out data for fitting: labelled arrays, or texts through the members' tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle import hash_file
from toolkit.errors import RecipeError
from toolkit.fitting import Split, labelled_examples, text_examples
from toolkit.merge.evaluators import LABELS, Accuracy, Perplexity
from toolkit.pipeline.plan import Plan
from toolkit.sources import HuggingFaceSource

__all__ = ["Data", "read_data"]

_ARRAYS = (".npz", ".safetensors")
_TEXTS = (".txt", ".jsonl")


@dataclass(frozen=True)
class Data:
    """Examples in batches.

    Attributes:
        split: Those to fit and those for validation.
        digest: Of the files they come from.
        text: Whether the labels are the next tokens of texts.
    """

    split: Split
    digest: str
    text: bool


def read_data(path: Path, plan: Plan, share: float, batch: int, window: int) -> Data:
    """Read a data file by its name: arrays with ``labels``, or texts.

    Args:
        path: ``.npz`` or ``.safetensors``; ``.txt`` or ``.jsonl`` with ``text``.
        plan: Says what models take, and where the tokenizer is.
        share: Of the examples, for validation.
        batch: Examples in a batch.
        window: Most tokens of a text at a time.

    Raises:
        RecipeError: If the file is of no such kind, or does not give what models take.
        MergeError: If it cannot be read.
    """
    if not path.is_file():
        raise RecipeError(f"there is no data file {path}")
    seed, inputs = plan.recipe.seed, plan.inputs
    if path.suffix in _ARRAYS:
        arrays = dict(Accuracy.from_file(path).arrays)
        name = next(name for name in LABELS if name in arrays)
        labels = arrays.pop(name)
        split = labelled_examples(arrays, labels, inputs, share=share, size=batch, seed=seed)
        return Data(split, hash_file(path).sha256, text=False)
    if path.suffix not in _TEXTS:
        raise RecipeError(
            f"{path.name} is none of {', '.join((*_ARRAYS, *_TEXTS))}",
            hint="arrays by input name with labels, or texts",
        )
    tokenizer = _tokenizer(plan, path)
    texts = Perplexity.from_file(path, tokenizer).texts
    split = text_examples(texts, inputs, window=window, share=share, size=batch, seed=seed)
    digest = hash_file(path).sha256 + hash_file(tokenizer).sha256
    return Data(split, digest, text=True)


def _tokenizer(plan: Plan, asked: Path) -> Path:
    for _, leaf in plan.leaves():
        if isinstance(leaf.origin, HuggingFaceSource):
            path = leaf.origin.folder / "tokenizer.json"
            if path.is_file():
                return path
    beside = plan.folder / "tokenizer.json"
    if beside.is_file():
        return beside
    raise RecipeError(
        f"{asked.name} holds texts, and no member has a tokenizer.json",
        hint="put one beside the recipe, or give arrays with labels",
    )
