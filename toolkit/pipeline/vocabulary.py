"""Members that share token ids share what the ids mean, or are translated.

The ids of an ensemble are those of the first member that reads them. A member with the same
tokens in another order, or with more of them, is translated: it reads each id as its own id of
the same token, and its logits are put in the ensemble's order; tokens that only it has are left
out, so what it says is said under the condition that one of the others comes next.

A member that lacks tokens gives them no probability. That is possible in a linear ensemble if it
has an unknown token, as which it reads them; in a log-linear one it would veto them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError, RecipeError
from toolkit.runtime import Translation
from toolkit.sources import HuggingFaceSource, decoder_start

__all__ = ["Reader", "translations"]

_TOKEN_HEADS = ("causal-lm", "masked-lm", "seq2seq-lm")


@dataclass(frozen=True)
class Reader:
    """A model that reads tokens.

    Attributes:
        path: Its place in the ensemble.
        name: What to call it.
        source: The model.
        ids: The name of its ``input_ids`` in the whole ensemble.
        vetoed: Whether a log-linear ensemble is anywhere above it.
        learns: Whether it is a student, and those that follow are its teachers.
    """

    path: tuple[str, ...]
    name: str
    source: HuggingFaceSource
    ids: str
    vetoed: bool
    learns: bool = False


@dataclass(frozen=True)
class _Vocabulary:
    """What ids mean.

    Attributes:
        rows: How many ids the model has.
        tokens: Id by token; None where there is no tokenizer.json, which only has fast tokenizers.
        cutting: What else decides how text is cut.
        order: Likewise, but no matter where the tokens differ.
        unknown: The id that stands for any other token.
    """

    rows: int
    tokens: Mapping[str, int] | None = None
    cutting: Any = None
    order: Any = None
    unknown: int | None = None


def translations(readers: Sequence[Reader]) -> dict[tuple[str, ...], Translation]:
    """For every member that needs one, by its path.

    Raises:
        RecipeError: If members that share ids cannot be brought onto one vocabulary.
        CheckpointError: If a tokenizer cannot be read.
    """
    first: dict[str, tuple[Reader, _Vocabulary]] = {}
    found: dict[tuple[str, ...], Translation] = {}
    for reader in readers:
        vocabulary = _read(reader.source)
        known, base = first.setdefault(reader.ids, (reader, vocabulary))
        if known is reader:
            continue
        if _same(base, vocabulary, reader):
            if (started := _started(known, reader)) is not None:
                found[reader.path] = started
            continue
        made = _Pair(known, base, reader, vocabulary).translation()
        if made is not None:
            found[reader.path] = made
    return found


def _same(base: _Vocabulary, other: _Vocabulary, reader: Reader) -> bool:
    """Whether ids mean the same, as far as can be told; a classifier's logits are no tokens."""
    if base.tokens is None or other.tokens is None:
        return base.rows == other.rows or reader.source.head not in _TOKEN_HEADS
    alike = (base.tokens, base.cutting, base.order) == (other.tokens, other.cutting, other.order)
    return alike and (base.rows == other.rows or reader.source.head not in _TOKEN_HEADS)


def _started(first: Reader, reader: Reader) -> Translation | None:
    """Where decoders start with different tokens, each reads the first's start as its own.

    That token begins a text and is not read again: what pads or ends one is not decoded from.
    """
    if reader.source.part != "decoder":
        return None
    start, own = (decoder_start(one.source.config) for one in (first, reader))
    if start is None or own is None or start == own:
        return None
    ids = list(range(reader.source.config.vocab_size))
    reads = [own if place == start else place for place in ids]
    return Translation("decoder_input_ids", "logits", tuple(reads), tuple(ids))


@dataclass(frozen=True)
class _Pair:
    first: Reader
    base: _Vocabulary
    reader: Reader
    own: _Vocabulary

    def translation(self) -> Translation | None:
        """From the first member's ids to this one's; None if they are the same."""
        base, own = self.base.tokens, self.own.tokens
        if "seq2seq-lm" in {self.first.source.head, self.reader.source.head}:
            if self.first.learns:
                raise self._refusal(
                    f"their vocabularies have {self.base.rows} and {self.own.rows}"
                    " ids, and encoder-decoder models are not translated"
                )
            raise RecipeError(
                f"encoder-decoder members {self.first.name!r} and {self.reader.name!r} share the "
                f"input {self.first.ids!r}, but their vocabularies differ "
                f"({self.base.rows} and {self.own.rows} ids)",
                hint="give them one tokenizer.json; only causal and masked models are translated",
            )
        if base is None or own is None:
            raise self._refusal(
                f"{self.first.name!r} has {self.base.rows} token ids and {self.reader.name!r} "
                f"{self.own.rows}, and without tokenizer.json in both folders nothing says what "
                "they mean"
            )
        lacking = [token for token in base if token not in own]
        surplus = [token for token in own if token not in base]
        heads = {self.first.source.head, self.reader.source.head}
        if (lacking and surplus) or not heads <= set(_TOKEN_HEADS):
            raise self._refusal(
                "their tokenizers differ, so the same ids mean different text"
                + (
                    f": {_some(lacking, self.first)} and {_some(surplus, self.reader)}"
                    if lacking and surplus
                    else ""
                )
            )
        merged = not lacking and not surplus and self.base.order != self.own.order
        if self.base.cutting != self.own.cutting or merged:
            raise self._refusal("their tokenizers cut the same text into different tokens")
        if lacking:
            self._check_lacking(lacking)
        return self._tables(base, own)

    def _check_lacking(self, lacking: Sequence[str]) -> None:
        hint = f"name {self.reader.name!r} first: its vocabulary is then that of the ensemble"
        if self.first.learns:
            hint = "teach a student whose tokens every teacher has"
        if self.reader.vetoed:
            raise RecipeError(
                f"member {self.reader.name!r} lacks {_some(lacking, self.first)}, and in"
                " a log-linear ensemble a token that one member lacks is vetoed for all",
                hint=hint,
            )
        if self.own.unknown is None:
            raise RecipeError(
                f"member {self.reader.name!r} lacks {_some(lacking, self.first)}, and "
                "has no unknown token to read them as",
                hint=hint,
            )

    def _tables(self, base: Mapping[str, int], own: Mapping[str, int]) -> Translation | None:
        rows, taken = self.base.rows, set(own.values())
        # Rows of an embedding past the last token, where it was padded, mean nothing to anybody.
        speaks = [i if i < self.own.rows and i not in taken else -1 for i in range(rows)]
        reads = [max(i, 0) for i in speaks]
        for token, place in base.items():
            speaks[place] = own.get(token, -1)
            reads[place] = speaks[place] if token in own else (self.own.unknown or 0)
        if speaks == list(range(self.own.rows)):
            return None
        return Translation("input_ids", "logits", tuple(reads), tuple(speaks))

    def _refusal(self, reason: str) -> RecipeError:
        if self.first.learns:
            return RecipeError(
                f"the student {self.first.name!r} cannot learn words from {self.reader.name!r}: "
                f"{reason}",
                hint="teachers and student need one tokenizer",
            )
        return RecipeError(
            f"members {self.first.name!r} and {self.reader.name!r} share the input "
            f"{self.first.ids!r}, but {reason}",
            hint="give one an input of its own: "
            f"rename: {{input_ids: {self.reader.name}_input_ids}}",
        )


def _some(tokens: Sequence[str], owner: Reader) -> str:
    what = "token" if len(tokens) == 1 else "tokens"
    return f"{len(tokens)} {what} of {owner.name!r}, such as {tokens[0]!r}"


def _read(source: HuggingFaceSource) -> _Vocabulary:
    path, rows = source.folder / "tokenizer.json", source.config.vocab_size
    if not path.is_file():
        return _Vocabulary(rows)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model"]
        vocab, added = model["vocab"], content.get("added_tokens") or ()
        listed = isinstance(vocab, list)
        tokens = {one[0]: i for i, one in enumerate(vocab)} if listed else dict(vocab)
        tokens.update({one["content"]: one["id"] for one in added})
        unknown = model.get("unk_id") if listed else tokens.get(model.get("unk_token"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is no tokenizer that can be read") from error
    _check_ids(path, tokens, rows)
    cutting = (model.get("type"), content.get("normalizer"))
    return _Vocabulary(rows, tokens, cutting, model.get("merges"), unknown)


def _check_ids(path: Path, tokens: Mapping[str, Any], rows: int) -> None:
    for token, place in tokens.items():
        if type(place) is not int or not 0 <= place < rows:
            raise CheckpointError(
                f"{path} gives token {token!r} the id {place}, and the model has {rows} ids"
            )
