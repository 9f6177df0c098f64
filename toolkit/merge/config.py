"""mergekit's configuration grammar: YAML documents to validated, frozen models.

Every key is known or an error that names it and its place; all errors of a document are reported
at once. Values of parameters are checked later, against the method that takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from toolkit.errors import MergeError
from toolkit.merge.conditions import Settings

__all__ = [
    "MergeConfig",
    "ModelSource",
    "ModelToken",
    "Part",
    "Slice",
    "SliceSource",
    "TokenSetting",
    "TokenizerSetting",
    "ZeroToken",
    "from_mapping",
    "load",
    "parse",
    "problems",
    "read_documents",
    "told",
    "validated",
]

MAX_BYTES = 1 << 20
MAX_NODES = 100_000


class Part(BaseModel):
    """A mapping of a config: frozen, and no key unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelSource(Part):
    """A whole model."""

    model: str
    parameters: Settings = Field(default_factory=dict)


class SliceSource(Part):
    """Some layers of a model: from ``layer_range[0]`` up to but without ``layer_range[1]``."""

    model: str
    layer_range: tuple[int, int] = Field(strict=False)
    parameters: Settings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_empty(self) -> SliceSource:
        first, stop = self.layer_range
        if not 0 <= first < stop:
            raise ValueError(f"layer_range [{first}, {stop}] holds no layer; 0 <= first < stop")
        return self


class Slice(Part):
    """Layers of the output, each merged from one layer of every source."""

    sources: list[SliceSource] = Field(min_length=1)
    base_model: str | None = None
    parameters: Settings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _same_length(self) -> Slice:
        lengths = [s.layer_range[1] - s.layer_range[0] for s in self.sources]
        if len(set(lengths)) > 1:
            raise ValueError(f"its sources have {lengths} layers, and equal numbers were wanted")
        return self


class ModelToken(Part):
    """The embedding of a token of one model."""

    kind: Literal["model_token"]
    model: str
    token_id: int | None = None
    token: str | None = None


class ZeroToken(Part):
    """An embedding of zeros."""

    kind: Literal["zero"]


class TokenSetting(Part):
    """Where the embedding of one token comes from, in models that lack it or, if forced, in all."""

    source: ModelToken | ZeroToken | str | None = None
    force: bool = False


class TokenizerSetting(Part):
    """The long form of ``tokenizer_source``."""

    source: str = "union"
    tokens: dict[str, TokenSetting] = Field(default_factory=dict)
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class MergeConfig(Part):
    """One merge."""

    merge_method: str
    name: str | None = None
    models: list[ModelSource] | None = Field(default=None, min_length=1)
    slices: list[Slice] | None = Field(default=None, min_length=1)
    base_model: str | None = None
    parameters: Settings = Field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: TokenizerSetting | None = None
    chat_template: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> MergeConfig:
        if (self.models is None) == (self.slices is None):
            raise ValueError("exactly one of models and slices is wanted")
        if self.tokenizer_source is not None and self.tokenizer is not None:
            raise ValueError("tokenizer_source and tokenizer say the same thing; give one")
        return self

    def references(self) -> list[str]:
        """Every model named, in order of first mention, the base first."""
        named = [self.base_model] if self.base_model else []
        named += [source.model for source in self.models or ()]
        for part in self.slices or ():
            named += [part.base_model] if part.base_model else []
            named += [source.model for source in part.sources]
        return list(dict.fromkeys(named))


def load(path: Path) -> list[MergeConfig]:
    """Read the documents of a YAML file.

    Raises:
        MergeError: If it cannot be read or any document breaks the grammar.
    """
    return validated(read_documents(path), str(path))


def read_documents(path: Path) -> list[Any]:
    """The documents of a YAML file as plain values, none of them checked.

    Raises:
        MergeError: If it cannot be read, is not YAML, too large or empty.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MergeError(f"{path} has more than {MAX_BYTES:,} bytes, too many for a config")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MergeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MergeError(f"{path} is not UTF-8 text: {error.reason}") from error
    return _documents(text, str(path))


def parse(text: str, where: str = "config") -> list[MergeConfig]:
    """Read the documents of a YAML text; ``where`` names it in messages."""
    return validated(_documents(text, where), where)


def _documents(text: str, where: str) -> list[Any]:
    try:
        documents = [d for d in yaml.load_all(text, _Loader) if d is not None]
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise MergeError(f"{where} is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise MergeError(f"{where} is nested too deeply") from error
    if not documents:
        raise MergeError(f"{where} is empty, and a merge configuration was wanted")
    _check_size(documents)
    return documents


def validated(documents: Sequence[Any], where: str) -> list[MergeConfig]:
    """Check documents that were read before.

    Raises:
        MergeError: If any of them breaks the grammar.
    """
    found = [
        problem for n, d in enumerate(documents) for problem in problems(d, _place(n, documents))
    ]
    if found:
        raise MergeError(f"{where}: " + "; ".join(found), hint=_hint(found))
    return [MergeConfig.model_validate(document) for document in documents]


def from_mapping(document: Mapping[str, Any]) -> MergeConfig:
    """Read one document that was parsed before.

    Raises:
        MergeError: If it breaks the grammar.
    """
    found = problems(document)
    if found:
        raise MergeError("config: " + "; ".join(found), hint=_hint(found))
    return MergeConfig.model_validate(document)


def problems(document: Any, place: str = "") -> list[str]:
    """What is wrong with one document, each with its place; empty for a valid one."""
    if not isinstance(document, Mapping):
        return [f"{place}a mapping was wanted, not {type(document).__name__}"]
    try:
        MergeConfig.model_validate(document)
    except ValidationError as error:
        return list(dict.fromkeys(place + told(e) for e in error.errors()))
    return []


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing repeated keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are scalars and differ."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is repeated or no name", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _check_size(document: Any) -> None:
    """Refuse what aliases make too large; walking stops at the limit."""
    left, budget = [document], MAX_NODES
    while left:
        budget -= 1
        if budget < 0:
            raise MergeError(f"the config holds more than {MAX_NODES:,} values, aliases followed")
        node = left.pop()
        if isinstance(node, dict):
            left += node.values()
        elif isinstance(node, list):
            left += node


def _place(number: int, documents: Sequence[Any]) -> str:
    return f"document {number + 1}: " if len(documents) > 1 else ""


def told(error: Any) -> str:
    """One of pydantic's errors as ``place: what was found and what was wanted``."""
    place = ""
    for part in error["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in {"str", "ModelToken", "ZeroToken"}:  # branches of a union
            place += f".{part}" if place else part
    if error["type"] == "extra_forbidden":
        return f"unknown key {place!r}"
    if error["type"] == "missing":
        return f"{place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _hint(found: Sequence[str]) -> str:
    known = ", ".join(MergeConfig.model_fields)
    modules = any("'modules'" in problem for problem in found)
    unsupported = "models of several modules are merged as a whole, with models; " * modules
    return f"{unsupported}top-level keys: {known}"
