"""A model folder's tokenizer, and which of its tokens mean something special."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.errors import CapabilityError, CheckpointError

__all__ = ["FolderTokenizer"]

_SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")


@dataclass(frozen=True)
class FolderTokenizer:
    """The fast tokenizer (``tokenizer.json``) of a model folder.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / "tokenizer.json"

    @cached_property
    def _made(self) -> Any:
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise CapabilityError(
                "texts need the tokenizers library, which is not installed",
                hint="pip install 'ensemble-to-engine[hf]'",
            ) from error
        if not self.path.is_file():
            raise CheckpointError(
                f"{self.folder} has no tokenizer.json, and the data are texts",
                hint="name a folder that has one as tokenizer, or give arrays",
            )
        try:
            made = Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{self.path} is no tokenizer: {error}") from error
        made.no_padding()
        made.no_truncation()
        return made

    def encode(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """Token ids and token types, with the special tokens that the tokenizer adds."""
        found = self._made.encode(text, pair)
        return list(found.ids), list(found.type_ids)

    def __len__(self) -> int:
        """How many tokens there are, special ones included."""
        return int(self._made.get_vocab_size(with_added_tokens=True))

    @cached_property
    def specials(self) -> frozenset[int]:
        """Ids of the special tokens."""
        added = self._made.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    def special(self, role: str) -> int | None:
        """The id of ``eos``, ``pad``, ``mask`` or another role; None where nobody names it."""
        for file in _SETTINGS:
            value = _json(self.folder / file).get(f"{role}_token")
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found = self._made.token_to_id(text)
                if found is not None:
                    return int(found)
        number = _json(self.folder / "config.json").get(f"{role}_token_id")
        if isinstance(number, list):
            number = number[0] if number else None
        if isinstance(number, int):
            return number
        usual = self._made.token_to_id(f"[{role.upper()}]")
        return None if usual is None else int(usual)


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}
