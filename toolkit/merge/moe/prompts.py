"""Prompts as token numbers, and what a dense model's layers see at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError

__all__ = ["token_numbers"]

Array = npt.NDArray[Any]


def token_numbers(prompts: Sequence[str], folder: Path, vocabulary: int) -> list[Array]:
    """Token numbers of each prompt, after the token that begins texts where there is one.

    Args:
        prompts: Texts.
        folder: The model's, with ``tokenizer.json``.
        vocabulary: How many rows its embedding has.

    Returns:
        ``int64[tokens]`` each.

    Raises:
        MergeError: If there is no tokenizer, or a prompt has none or unknown ones.
    """
    tokenizer = _tokenizer(folder)
    start = _beginning(folder)
    found = []
    for prompt in prompts:
        ids = np.array(tokenizer.encode(start + prompt, add_special_tokens=False).ids, np.int64)
        if not ids.size:
            raise MergeError(f"the prompt {prompt!r} has no tokens")
        if ids.max() >= vocabulary:
            raise MergeError(
                f"the prompt {prompt[:40]!r} has token {ids.max()}, and {folder.name} has "
                f"{vocabulary} embeddings: the tokenizer belongs to another model"
            )
        found.append(ids)
    return found


def _tokenizer(folder: Path) -> Any:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (an extra: only prompts need it)
    except ImportError as error:
        raise MergeError(
            "reading prompts needs the tokenizers library",
            hint="pip install ensemble-to-engine[hf]",
        ) from error
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise MergeError(
            f"{folder} has no tokenizer.json, which prompts are read with",
            hint="save the base's fast tokenizer beside it, or set gate_mode: random",
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise MergeError(f"{path} is not a tokenizer: {error}") from error


def _beginning(folder: Path) -> str:
    """The token that texts begin with, as the tokenizer's settings say; empty where none does."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        try:
            settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise MergeError(f"cannot read {path}: {error}") from error
        token = settings.get("bos_token") if isinstance(settings, dict) else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return ""
