"""Tokenizers as vocabularies: which token has which row, and a union of several.

Works on ``tokenizer.json`` (the format of the tokenizers library) alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import MergeError

__all__ = ["Tokenizer", "read_tokenizer", "with_tokens"]

FILE = "tokenizer.json"
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer file and the rows it gives to tokens.

    Attributes:
        document: The whole file.
        rows: Row of each token, added ones included.
    """

    document: Mapping[str, Any]
    rows: Mapping[str, int]

    @property
    def size(self) -> int:
        """One more than the largest row."""
        return max(self.rows.values(), default=-1) + 1

    def text(self) -> str:
        """The file's content."""
        return json.dumps(self.document, ensure_ascii=False, indent=2) + "\n"


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Read a model's tokenizer; None if it has none in this format.

    Raises:
        MergeError: If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise MergeError(f"{path} has more than {_MAX_BYTES:,} bytes, too many for a tokenizer")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = _rows(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MergeError(
            f"{path} is not a tokenizer of the tokenizers library: {error!r}"
        ) from error
    return Tokenizer(document, rows)


def _rows(document: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, Mapping):
        rows = {str(token): int(row) for token, row in vocabulary.items()}
    else:  # Unigram has a list of [token, score]
        rows = {str(token): row for row, (token, _) in enumerate(vocabulary)}
    for added in document.get("added_tokens") or ():
        rows[str(added["content"])] = int(added["id"])
    if len(set(rows.values())) < len(rows) or min(rows.values(), default=0) < 0:
        raise ValueError("two tokens have one row, or a row is negative")
    return rows


def with_tokens(base: Tokenizer, others: Sequence[Tokenizer], extra: Sequence[str]) -> Tokenizer:
    """The base with what the others have beside it, and ``extra``, added behind its own rows.

    Rows of the base stay. Tokens of the others' models become added tokens: text is split at them
    before the base's own rules apply, as with mergekit's union.
    """
    rows = dict(base.rows)
    added = list(base.document.get("added_tokens") or ())
    settings = {
        entry["content"]: entry
        for other in others
        for entry in reversed(other.document.get("added_tokens") or ())
    }
    wanted = [t for other in others for t in sorted(other.rows, key=other.rows.__getitem__)]
    for token in dict.fromkeys((*wanted, *extra)):
        if token not in rows:
            rows[token] = base.size + len(rows) - len(base.rows)
            added.append(_entry(token, rows[token], settings.get(token, {})))
    return Tokenizer({**base.document, "added_tokens": added}, rows)


def _entry(token: str, row: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": False, **settings, "id": row, "content": token,
    }  # fmt: skip
