"""From prompts to text, with a bundle and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.bundle import open_bundle
from toolkit.errors import BundleError, RecipeError
from toolkit.generation.beams import search
from toolkit.generation.choosing import choose
from toolkit.generation.decoder import Decoder, Device
from toolkit.generation.settings import GenerationSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Generated", "Generator"]

_Array = npt.NDArray[Any]
Told = Callable[[int, tuple[int, ...]], None]


@dataclass(frozen=True)
class Generated:
    """What followed one prompt.

    Attributes:
        prompt: Its tokens.
        tokens: What was generated, with the token that ended it if one did.
        text: The same as text without that token; empty without a tokenizer.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


class Generator:
    """A decoder bundle, ready to go on with prompts.

    Attributes:
        decoder: Its session.
        ends: Tokens that end a text.
    """

    def __init__(self, folder: Path, *, device: Device = "cpu", threads: int = 0) -> None:
        """Open a bundle.

        Args:
            folder: The bundle; its files are checked against its manifest first.
            device: ``cpu`` or ``cuda``.
            threads: For the runtime; 0 for one on each core.

        Raises:
            BundleError: If it is no bundle, or none of a decoder with caches.
            IntegrityError: If files differ from the manifest.
        """
        bundle = open_bundle(folder)
        manifest = bundle.manifest
        inputs = [tensor.spec() for tensor in manifest.inputs]
        outputs = [tensor.name for tensor in manifest.outputs]
        self.decoder = Decoder(bundle.model, inputs, outputs, device=device, threads=threads)
        self.ends = _ends(folder)
        self._folder = folder
        self._vocabulary = next(s.high for s in inputs if s.name == self.decoder.caches.ids)
        self._room = self._positions(manifest.shapes, inputs)
        self._tokenizer: Tokenizer | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        Raises:
            BundleError: If the bundle has none.
        """
        if self._tokenizer is None:
            path = self._folder / "tokenizer.json"
            if not path.is_file():
                raise BundleError(
                    f"{self._folder} has no tokenizer.json, so text cannot be read",
                    hint="give token ids: --ids 1,2,3",
                )
            from tokenizers import Tokenizer  # noqa: PLC0415  (only text needs it)

            self._tokenizer = Tokenizer.from_file(str(path))
        return self._tokenizer

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        settings: GenerationSettings | None = None,
        told: Told | None = None,
    ) -> list[Generated]:
        """Go on with each prompt.

        Args:
            prompts: Token ids; padded on the left to run as one batch.
            settings: How to choose tokens; greedy if None.
            told: Called with a prompt's number and its tokens so far, whenever it has grown.

        Raises:
            RecipeError: If a prompt is empty, has tokens the model does not know, or leaves no
                room in the caches.
        """
        settings = settings or GenerationSettings()
        for number, prompt in enumerate(prompts):
            self._check(number, prompt, settings)
        if settings.beams > 1:
            found = list(self._by_beams(prompts, settings, told))
        else:
            found = self._one_by_one(prompts, settings, told)
        return [
            Generated(tuple(prompt), tokens, self.decode(tokens))
            for prompt, tokens in zip(prompts, found, strict=True)
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated tokens, without what ends it; empty without a tokenizer."""
        if self._tokenizer is None and not (self._folder / "tokenizer.json").is_file():
            return ""
        text: str = self.tokenizer.decode([t for t in tokens if t not in self.ends])
        return text

    def _by_beams(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, told: Told | None
    ) -> Iterator[tuple[int, ...]]:
        for number, prompt in enumerate(prompts):
            tokens = search(self.decoder, np.array(prompt, np.int64), settings, self.ends)
            if told is not None:
                told(number, tokens)
            yield tokens

    def _one_by_one(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, told: Told | None
    ) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(settings.seed)
        ids, mask = _padded(prompts)
        found: list[list[int]] = [[] for _ in prompts]
        running = np.ones(len(prompts), bool)
        state = self.decoder.start(len(prompts))
        for _ in range(settings.max_new_tokens):
            logits, state = self.decoder.step(ids, mask, state)
            tokens = choose(logits, settings, rng)
            for row in np.flatnonzero(running):
                found[row].append(int(tokens[row]))
                if told is not None:
                    told(int(row), tuple(found[row]))
            running &= ~np.isin(tokens, list(self.ends))
            if not running.any():
                break
            # Rows that have ended go on unseen: a batch keeps its shape.
            ids, mask = tokens[:, None], np.ones((len(prompts), 1), np.int64)
        return [tuple(tokens) for tokens in found]

    def _positions(
        self, shapes: dict[str, tuple[int, int, int]], inputs: Sequence[TensorSpec]
    ) -> tuple[int, int, int]:
        """Most rows, most tokens in one step, most positions in a cache."""
        ids = next(spec for spec in inputs if spec.name == self.decoder.caches.ids)
        past = next(spec for spec in inputs if spec.name == self.decoder.caches.past[0])
        dims = (*ids.shape, past.shape[2])
        rows, new, cached = (dim if isinstance(dim, int) else shapes[dim][2] for dim in dims)
        return rows, new, cached

    def _check(self, number: int, prompt: Sequence[int], settings: GenerationSettings) -> None:
        rows, new, cached = self._room
        if not prompt:
            raise RecipeError(f"prompt {number + 1} is empty", hint="give at least one token")
        unknown = [t for t in prompt if t < 0 or (self._vocabulary and t >= self._vocabulary)]
        if unknown:
            raise RecipeError(
                f"prompt {number + 1} has token {unknown[0]}, and the model knows 0 to"
                f" {int(self._vocabulary or 0) - 1}"
            )
        if number >= rows or settings.beams > rows:
            raise RecipeError(
                f"{max(number + 1, settings.beams)} rows, and the graph takes up to {rows}",
                hint="fewer prompts or beams, or a larger batch in the recipe's shapes",
            )
        if len(prompt) > new:
            raise RecipeError(
                f"prompt {number + 1} has {len(prompt)} tokens, and the graph takes up to {new}",
                hint="a larger sequence in the recipe's shapes",
            )
        if len(prompt) + settings.max_new_tokens - 2 > cached:
            raise RecipeError(
                f"{len(prompt)} tokens and {settings.max_new_tokens} more need a cache of"
                f" {len(prompt) + settings.max_new_tokens - 2} positions, and the graph's ends at"
                f" {cached}",
                hint="fewer --max-new-tokens, or a larger past_sequence in the recipe's shapes",
            )


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[_Array, _Array]:
    """Ids and mask [prompts, longest], padded on the left with the prompt's own first token."""
    longest = max(map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return np.array(ids, np.int64), np.array(mask, np.int64)


def _ends(folder: Path) -> frozenset[int]:
    """End tokens by the bundle's ``generation_config.json``; none without it."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return frozenset()
    found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return frozenset([found] if isinstance(found, int) else found or [])
