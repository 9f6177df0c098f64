"""Records of text or tokens as rows of one length, for each task.

    classification  {"text", "pair"?, "label"?}: a row is a record
    causal-lm       {"text"}: documents one after the other, cut into blocks; or a row is a document
    masked-lm       the same, with a seeded share of the tokens masked (Devlin et al. 2019)
    seq2seq-lm      {"text", "target"?}: the decoder is given the target moved by one
    embedding       {"text", "pair"?}: a row is a record

``input_ids`` in place of ``text`` (``labels`` in place of ``target``) are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit.distill.tokens import FolderTokenizer
from toolkit.distill.types import IGNORED, LABELS, Task
from toolkit.errors import RecipeError

__all__ = ["Reader", "shifted"]

_KNOWN = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_input_ids")
_Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """How records become rows.

    Attributes:
        task: What they are for.
        tokenizer: Of the student and of every teacher.
        inputs: Names of what the models take.
        length: Most tokens in a row.
        packed: For language models: blocks of whole length, or a row for each document.
        text: The key of texts.
        label: That of classes.
        target: That of what a decoder is to say.
        masked: Share of the tokens that a masked language model has to guess.
        start: The token that decoding starts with.
        seed: Of the masks.
    """

    task: Task
    tokenizer: FolderTokenizer
    inputs: tuple[str, ...]
    length: int = 128
    packed: bool = True
    text: str = "text"
    label: str = "label"
    target: str = "target"
    masked: float = 0.15
    start: int | None = None
    seed: int = 0

    def rows(self, records: Sequence[_Record]) -> dict[str, Tensor]:
        """Columns of equal length: inputs int64 [R, S], and labels where there are some.

        Raises:
            RecipeError: If records lack what the task reads, or models take what they do not give.
        """
        self._check_inputs()
        if self.task in {"causal-lm", "masked-lm"}:
            columns = self._language(records)
            return self._mask(columns) if self.task == "masked-lm" else columns
        encoded = [self._encode(number, record) for number, record in enumerate(records)]
        columns = self._padded(encoded)
        if self.task == "seq2seq-lm":
            self._targets(records, columns)
        elif self.task == "classification":
            labels = self._classes(records)
            if labels is not None:
                columns[LABELS] = labels
        return columns

    def _check_inputs(self) -> None:
        for name in self.inputs:
            if name not in _KNOWN:
                raise RecipeError(
                    f"the models take {name!r}, which a text does not give",
                    hint="give arrays by input name (.npz, .safetensors)",
                )

    def _encode(self, number: int, record: _Record) -> tuple[list[int], list[int]]:
        if "input_ids" in record:
            ids = [int(one) for one in record["input_ids"]]
            types = [int(one) for one in record.get("token_type_ids", [0] * len(ids))]
            return ids, types
        text = record.get(self.text)
        if not isinstance(text, str):
            raise RecipeError(
                f"record {number + 1} has no text under {self.text!r}",
                hint="it has " + ", ".join(map(str, record)) + "; name the key with data.text",
            )
        pair = record.get("pair")
        return self.tokenizer.encode(text, pair if isinstance(pair, str) else None)

    def _padded(self, encoded: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        ids = _matrix([e[0] for e in encoded], self._pad, self.length)
        lengths = torch.tensor([min(len(e[0]), self.length) for e in encoded])
        places = torch.arange(ids.shape[1])
        columns = {"input_ids": ids, "attention_mask": (places < lengths[:, None]).long()}
        if "token_type_ids" in self.inputs:
            columns["token_type_ids"] = _matrix([e[1] for e in encoded], 0, self.length)
        if "position_ids" in self.inputs:
            columns["position_ids"] = places.expand_as(ids).contiguous()
        return columns

    @property
    def _pad(self) -> int:
        return self.tokenizer.special("pad") or 0

    def _language(self, records: Sequence[_Record]) -> dict[str, Tensor]:
        end = self.tokenizer.special("eos") if self.task == "causal-lm" else None
        documents = []
        for number, record in enumerate(records):
            ids, _ = self._encode(number, record)
            if end is not None and ids and ids[-1] != end:
                ids.append(end)
            documents.append(ids)
        rows = list(self._blocks(documents)) if self.packed else [d for d in documents if d]
        if not rows or max(map(len, rows)) < 2:
            raise RecipeError("the texts have fewer than two tokens, too few to learn from")
        columns = self._padded([(row, [0] * len(row)) for row in rows])
        real = columns["attention_mask"].bool()
        columns[LABELS] = columns["input_ids"].masked_fill(~real, IGNORED)
        return columns

    def _blocks(self, documents: Sequence[list[int]]) -> Iterator[list[int]]:
        """Whole blocks; what is left over at the end is left out unless it is all there is."""
        stream = [token for document in documents for token in document]
        whole = len(stream) // self.length
        for block in range(max(whole, 1)):
            yield stream[block * self.length : (block + 1) * self.length]

    def _mask(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the chosen tokens 80 % become the mask, 10 % another token, 10 % stay.

        Always the same of a row, so that what teachers say of it can be kept.
        """
        mask = self.tokenizer.special("mask")
        if mask is None:
            raise RecipeError(f"{self.tokenizer.path} has no mask token, which a masked-lm needs")
        ids, real = columns["input_ids"], columns["attention_mask"].bool()
        for special in self.tokenizer.specials:
            real &= ids != special
        generator = torch.Generator().manual_seed(self.seed)
        chosen = real & (torch.rand(ids.shape, generator=generator) < self.masked)
        how = torch.rand(ids.shape, generator=generator)
        other = torch.randint(len(self.tokenizer), ids.shape, generator=generator)
        seen = torch.where(how < 0.8, mask, torch.where(how < 0.9, other, ids))
        columns[LABELS] = ids.masked_fill(~chosen, IGNORED)
        columns["input_ids"] = torch.where(chosen, seen, ids)
        return columns

    def _targets(self, records: Sequence[_Record], columns: dict[str, Tensor]) -> None:
        end, said = self.tokenizer.special("eos"), []
        for number, record in enumerate(records):
            if LABELS in record:
                ids = [int(one) for one in record[LABELS]]
            elif isinstance(record.get(self.target), str):
                ids, _ = self.tokenizer.encode(record[self.target])
            else:
                raise RecipeError(
                    f"record {number + 1} has no text under {self.target!r}",
                    hint="it has " + ", ".join(map(str, record)) + "; or name data.target",
                )
            closed = ids if end is None or (ids and ids[-1] == end) else [*ids, end]
            said.append(closed)
        labels = _matrix(said, IGNORED, self.length)
        columns[LABELS] = labels
        columns["decoder_input_ids"] = shifted(labels, self._start(), self._pad)

    def _start(self) -> int:
        if self.start is None:
            raise RecipeError("the student's configuration has no decoder_start_token_id")
        return self.start

    def _classes(self, records: Sequence[_Record]) -> Tensor | None:
        if not any(self.label in record for record in records):
            return None
        found = [record.get(self.label, IGNORED) for record in records]
        for number, label in enumerate(found):
            if isinstance(label, bool) or not isinstance(label, int):
                raise RecipeError(
                    f"record {number + 1} has the label {label!r}, wanted the class's number"
                )
        return torch.tensor(found)


def shifted(labels: Tensor, start: int, pad: int) -> Tensor:
    """What a decoder is given so that it says ``labels`` [R, S]: moved by one, behind ``start``."""
    moved = labels.roll(1, dims=-1)
    moved[:, 0] = start
    return moved.masked_fill(moved == IGNORED, pad)


def _matrix(rows: Sequence[Sequence[int]], fill: int, most: int) -> Tensor:
    width = min(max(map(len, rows), default=0), most)
    found = torch.full((len(rows), max(width, 1)), fill, dtype=torch.int64)
    for place, row in enumerate(rows):
        cut = list(row[:width])
        found[place, : len(cut)] = torch.tensor(cut, dtype=torch.int64)
    return found
