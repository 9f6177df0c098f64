"""``toolkit generate``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.generation import Generated, Generator

__all__ = ["generate_command"]


def generate_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a decoder with caches.")],
    encoder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The encoder's bundle, for a decoder that reads a source."),
    ] = None,
    prompt: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(help="Text to go on with; may be given several times."),
    ] = None,
    prompt_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A text file to go on with."),
    ] = None,
    ids: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Token ids instead of text: 1,2,3; may be given several times."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to add.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Sample among this many tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample among tokens of this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    beams: Annotated[int, typer.Option(help="Beam search with this many hypotheses.")] = 1,
    threads: Annotated[int, typer.Option(help="For ONNX Runtime; 0: one per core.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Go on with a text, or answer it with an encoder-decoder, with ONNX Runtime alone.

    The text is shown as it is made; with several prompts or beams, when it is finished.
    """
    from toolkit.generation import GenerationSettings, Generator

    settings = GenerationSettings(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        seed=seed, beams=beams,
    )  # fmt: skip
    texts = [*(prompt or []), *([_read(prompt_file)] if prompt_file else [])]
    numbers = [_numbers(one) for one in ids or []]
    if bool(texts) == bool(numbers):
        raise typer.BadParameter(
            "give a text or token ids", param_hint="'--prompt', '--prompt-file' or '--ids'"
        )
    generator = Generator(bundle, encoder=encoder, threads=threads)
    prompts = numbers or [generator.encode(text) for text in texts]
    stream = _Stream(generator) if len(prompts) == 1 and beams == 1 and not json else None
    started = time.perf_counter()
    found = generator(prompts, settings, stream)
    seconds = time.perf_counter() - started
    count = sum(len(one.tokens) for one in found)
    _write(found, json=json, shown=stream is not None)
    sys.stderr.write(f"{count} tokens in {seconds:.2f} s, {count / seconds:.1f} a second\n")


def _write(found: Sequence[Generated], *, json: bool, shown: bool) -> None:
    if json:
        from toolkit.cli.terminal import show

        made: list[dict[str, Any]] = [
            {"prompt": list(one.prompt), "tokens": list(one.tokens), "text": one.text}
            for one in found
        ]
        show(made, as_json=True, tables=[])
    elif shown:
        sys.stdout.write("\n")
    else:
        for one in found:
            sys.stdout.write((one.text or " ".join(map(str, one.tokens))) + "\n")


class _Stream:
    """Writes what is new of a text; characters of several tokens when they are whole."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._shown = 0

    def __call__(self, _prompt: int, tokens: tuple[int, ...]) -> None:
        text = self._generator.decode(tokens)
        if not text and tokens:  # without a tokenizer
            text = " ".join(map(str, tokens))
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            sys.stdout.write(text[self._shown :])
            sys.stdout.flush()
            self._shown = len(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{path} cannot be read as text: {error}", param_hint="'--prompt-file'"
        ) from error


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"found {text!r}, wanted whole numbers: 1,2,3", param_hint="'--ids'"
        ) from error
