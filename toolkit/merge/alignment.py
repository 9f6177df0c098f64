"""``tokenizer_source``: one vocabulary for all models, and their embeddings rearranged to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.errors import MergeError
from toolkit.merge.config import MergeConfig, ModelToken, TokenizerSetting, TokenSetting, ZeroToken
from toolkit.merge.models import Model
from toolkit.merge.tensors import FLOATS
from toolkit.merge.tokenizer import FILE, Tokenizer, read_tokenizer, with_tokens
from toolkit.merge.vocabulary import PAD, ZERO, RowTensor

__all__ = ["Alignment", "align"]

_MATRICES = (
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight",
    "shared.weight", "lm_head.weight", "embed_out.weight",
)  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """Models on one vocabulary.

    Attributes:
        models: By reference, with matrices of equal numbers of rows.
        files: The tokenizer to write, by file name; empty if the donor's own is kept.
        size: Rows of the vocabulary; None where nothing was asked for.
    """

    models: Mapping[str, Model]
    files: Mapping[str, str]
    size: int | None = None


def align(config: MergeConfig, models: Mapping[str, Model]) -> Alignment:
    """Bring models onto the vocabulary that the config asks for.

    ``base`` is the donor's, a model's name that model's, ``union`` the donor's with the tokens of
    all others behind. A token that a model lacks gets the embedding of the one model that has it,
    else of the base, else the mean of those that have it; mergekit's rules.

    Raises:
        MergeError: If a tokenizer is missing, or a token's source is.
    """
    setting = config.tokenizer or (
        TokenizerSetting(source=config.tokenizer_source) if config.tokenizer_source else None
    )
    if setting is None:
        return Alignment(models, {})
    return _Aligner(config, setting, models).align()


@dataclass(frozen=True)
class _Aligner:
    config: MergeConfig
    setting: TokenizerSetting
    models: Mapping[str, Model]

    def align(self) -> Alignment:
        known = {ref: self._tokenizer(model) for ref, model in self.models.items()}
        wanted = self._wanted(known)
        size = wanted.size
        step = self.setting.pad_to_multiple_of or 1
        padded = -(-size // step) * step
        rows = {ref: self._rows(ref, known[ref], wanted, padded) for ref in self.models}
        borrowed = self._borrowed(wanted, rows, known)
        aligned = {ref: self._model(ref, rows, borrowed[ref]) for ref in self.models}
        return Alignment(aligned, {FILE: wanted.text()}, padded)

    def _tokenizer(self, model: Model) -> Tokenizer:
        donor = next(iter(self.models.values()))
        own = read_tokenizer(model.folder) if model.folder else None
        if own is None and _size(model) == _size(donor) and donor.folder:
            own = read_tokenizer(donor.folder)  # an unchanged vocabulary, saved without it
        if own is None:
            raise MergeError(
                f"{model.label} has no {FILE}, so its tokens are not known",
                hint="save it with a fast tokenizer, or leave tokenizer_source out",
            )
        return own

    def _wanted(self, known: Mapping[str, Tokenizer]) -> Tokenizer:
        first = next(iter(self.models))
        source, extra = self.setting.source, list(self.setting.tokens)
        if source == "union":
            others = [tokenizer for ref, tokenizer in known.items() if ref != first]
            return with_tokens(known[first], others, extra)
        chosen = first if source == "base" else source
        if chosen not in known:
            raise MergeError(
                f"tokenizer_source is {source!r}",
                hint=f"base, union or one of {', '.join(known)}",
            )
        return with_tokens(known[chosen], [], extra)

    def _rows(
        self, reference: str, own: Tokenizer, wanted: Tokenizer, padded: int
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For every row of the result its row in a model, or ``ZERO`` or ``PAD``."""
        rows = np.full(padded, ZERO, np.int64)
        rows[wanted.size :] = PAD
        count = _size(self.models[reference])
        for token, row in wanted.rows.items():
            before = own.rows.get(token, count)
            if before < count:
                rows[row] = before
        return rows

    def _borrowed(
        self, wanted: Tokenizer, rows: Mapping[str, Any], known: Mapping[str, Tokenizer]
    ) -> dict[str, dict[int, list[tuple[int, int]]]]:
        """Per model, the rows that come from others."""
        order = list(self.models)
        found: dict[str, dict[int, list[tuple[int, int]]]] = {ref: {} for ref in order}
        for token, row in wanted.rows.items():
            setting = self.setting.tokens.get(token, TokenSetting())
            lacking = [ref for ref in order if rows[ref][row] < 0 or setting.force]
            if lacking:
                source = self._source(token, row, setting, rows, known)
                for ref in lacking:
                    found[ref][row] = source
        return found

    def _source(
        self,
        token: str,
        row: int,
        setting: TokenSetting,
        rows: Mapping[str, Any],
        known: Mapping[str, Tokenizer],
    ) -> list[tuple[int, int]]:
        """(model, row) pairs whose mean a token's embedding is; none for zeros."""
        order = list(self.models)
        if isinstance(setting.source, ZeroToken):
            return []
        if isinstance(setting.source, ModelToken):
            return [_given(setting.source, token, order, known, self.models)]
        having = [(n, int(rows[ref][row])) for n, ref in enumerate(order) if rows[ref][row] >= 0]
        if setting.source is not None:
            chosen = [pair for pair in having if order[pair[0]] == setting.source]
            if not chosen:
                raise MergeError(
                    f"token {token!r} is to come from {setting.source!r}, which lacks it"
                )
            return chosen
        base = self.config.base_model
        own = [pair for pair in having if order[pair[0]] == base]
        return own if own and len(having) > 1 else having

    def _model(self, reference: str, rows: Mapping[str, Any], borrowed: Mapping[int, Any]) -> Model:
        model = self.models[reference]
        tensors = dict(model.tensors)
        for name in _matrices(model):
            others = [m.tensors.get(name, model.tensors[name]) for m in self.models.values()]
            dtypes = {tensor.dtype for tensor in others}
            plain = len(dtypes) == 1 and all(len(pairs) < 2 for pairs in borrowed.values())
            plain = plain and not (rows[reference] == PAD).any()
            dtype = model.tensors[name].dtype if plain else "F64" if "F64" in dtypes else "F32"
            present = {row: pairs for row, pairs in borrowed.items() if pairs}
            own = rows[reference].copy()
            own[[row for row, pairs in borrowed.items() if not pairs]] = ZERO
            tensors[name] = RowTensor(model.tensors[name], others, own, present, dtype)
        return replace(model, tensors=tensors)


def _given(
    source: ModelToken,
    token: str,
    order: list[str],
    known: Mapping[str, Tokenizer],
    models: Mapping[str, Model],
) -> tuple[int, int]:
    """The row that a token's setting names."""
    if source.model not in order or (source.token is None) == (source.token_id is None):
        raise MergeError(f"token {token!r}: a model of the merge and one of token and token_id")
    row = source.token_id
    if row is None:
        row = known[source.model].rows.get(source.token or "", -1)
    if not 0 <= row < _size(models[source.model]):
        raise MergeError(f"token {token!r} is to come from row {row} of {source.model!r}")
    return order.index(source.model), row


def _matrices(model: Model) -> list[str]:
    return [
        name
        for name, tensor in model.tensors.items()
        if name.endswith(_MATRICES) and len(tensor.shape) == 2 and tensor.dtype in FLOATS
    ]


def _size(model: Model) -> int:
    """Rows of a model's vocabulary."""
    sizes = {model.tensors[name].shape[0] for name in _matrices(model)}
    if len(sizes) != 1:
        raise MergeError(f"{model.label} has vocabularies of {sorted(sizes) or 'no'} rows")
    return sizes.pop()
