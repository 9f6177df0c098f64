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
from toolkit.bundle import Bundle, open_bundle
from toolkit.errors import BundleError
from toolkit.generation.beams import search
from toolkit.generation.choosing import choose
from toolkit.generation.decoder import Decoder, Device
from toolkit.generation.room import Room
from toolkit.generation.settings import GenerationSettings
from toolkit.generation.source import Encoder, check_pair

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
    """A decoder bundle, ready to go on with prompts, or with an encoder to answer them.

    Attributes:
        decoder: Its session.
        encoder: The encoder's, if there is one.
        ends: Tokens that end a text.
        start: Tokens that a decoder with an encoder begins with; those of a prompt otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        encoder: Path | None = None,
        device: Device = "cpu",
        threads: int = 0,
    ) -> None:
        """Open a bundle.

        Args:
            folder: The bundle; its files are checked against its manifest first.
            encoder: The bundle of the encoder, for a decoder that has one.
            device: ``cpu`` or ``cuda``.
            threads: For the runtime; 0 for one on each core.

        Raises:
            BundleError: If it is no bundle, or none of a decoder with caches; if the encoder is
                missing, is not wanted, or does not fit.
            IntegrityError: If files differ from the manifest.
        """
        bundle = open_bundle(folder)
        manifest = bundle.manifest
        inputs = [tensor.spec() for tensor in manifest.inputs]
        outputs = [tensor.name for tensor in manifest.outputs]
        self.decoder = Decoder(bundle.model, inputs, outputs, device=device, threads=threads)
        self.ends = frozenset(_special(folder, "eos_token_id"))
        self.encoder: Encoder | None = None
        self.start: tuple[int, ...] = ()
        if encoder is not None or self.decoder.caches.cross:
            read = _encoder_bundle(bundle, encoder, self.decoder)
            self.encoder = Encoder(read, device=device, threads=threads)
            self.start = _start(folder)
        self._folder = folder
        self._room = _room(manifest.shapes, inputs, self.decoder, self.encoder)
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
            prompts: Token ids; padded on the left to run as one batch, or on the right for an
                encoder.
            settings: How to choose tokens; greedy if None.
            told: Called with a prompt's number and its tokens so far, whenever it has grown.

        Raises:
            RecipeError: If a prompt is empty, has tokens the model does not know, or leaves no
                room in the caches.
        """
        settings = settings or GenerationSettings()
        for number, prompt in enumerate(prompts):
            self._room.check(number, prompt, settings)
            self._room.check_start(len(self.start or prompt), settings)
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
            source = None if self.encoder is None else self.encoder([prompt])
            begun = np.array(self.start or prompt, np.int64)
            tokens = search(self.decoder, begun, settings, self.ends, source)
            if told is not None:
                told(number, tokens)
            yield tokens

    def _one_by_one(
        self, prompts: Sequence[Sequence[int]], settings: GenerationSettings, told: Told | None
    ) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(settings.seed)
        source = None if self.encoder is None else self.encoder(prompts)
        ids, mask = _padded([self.start or prompt for prompt in prompts])
        found: list[list[int]] = [[] for _ in prompts]
        running = np.ones(len(prompts), bool)
        state = self.decoder.start(len(prompts), source)
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


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[_Array, _Array]:
    """Ids and mask [prompts, longest], padded on the left with the prompt's own first token."""
    longest = max(map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return np.array(ids, np.int64), np.array(mask, np.int64)


def _room(
    shapes: dict[str, tuple[int, int, int]],
    inputs: Sequence[TensorSpec],
    decoder: Decoder,
    encoder: Encoder | None,
) -> Room:
    def largest(name: str, axis: int) -> int:
        dim = next(spec.shape[axis] for spec in inputs if spec.name == name)
        return dim if isinstance(dim, int) else shapes[dim][2]

    caches = decoder.caches
    rows, new, cached = largest(caches.ids, 0), largest(caches.ids, 1), largest(caches.past[0], 2)
    if encoder is None:
        vocabulary = next(spec.high for spec in inputs if spec.name == caches.ids)
        return Room(vocabulary, rows, new, "sequence", new, cached)
    read = min(encoder.longest, largest(caches.cross[0], 2))
    return Room(encoder.ids.high, min(rows, encoder.rows), read, "source", new, cached)


def _encoder_bundle(bundle: Bundle, encoder: Path | None, decoder: Decoder) -> Bundle:
    """The bundle of the encoder that the decoder needs."""
    if encoder is None:
        raise BundleError(
            f"{bundle.folder} is the decoder of encoder-decoder models, and no encoder is given",
            hint="--encoder DIR: toolkit export RECIPE --part encoder makes it",
        )
    if not decoder.caches.cross:
        raise BundleError(
            f"{bundle.folder} reads its prompts by itself and takes no encoder",
            hint="leave --encoder out",
        )
    found = open_bundle(encoder)
    check_pair(bundle, found)
    return found


def _start(folder: Path) -> tuple[int, ...]:
    """What decoding begins with: the start token, and the first token where that is forced."""
    start = _special(folder, "decoder_start_token_id")
    if not start:
        raise BundleError(
            f"generation_config.json of {folder} does not say decoder_start_token_id",
            hint="say it in config.json of the first member and export again",
        )
    return (start[0], *_special(folder, "forced_bos_token_id"))


def _special(folder: Path, key: str) -> tuple[int, ...]:
    """Tokens by the bundle's ``generation_config.json``; none without it."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return ()
    found = json.loads(path.read_text(encoding="utf-8")).get(key)
    return (found,) if isinstance(found, int) else tuple(found or ())
