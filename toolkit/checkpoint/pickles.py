"""Pickled weights: how to recognise them, why they are refused, and how to convert them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import CheckpointError

__all__ = ["PICKLE_SUFFIXES", "conversion_command", "looks_pickled", "pickle_error"]

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_ZIP = b"PK\x03\x04"  # torch.save since 1.6 writes a zip archive holding a pickle
_PICKLE_PROTOCOLS = range(2, 6)


def looks_pickled(prefix: bytes) -> bool:
    """Whether a file that starts with ``prefix`` (9 bytes or more) is a pickle or holds one.

    A safetensors file may start with 0x80 0x02 too, as a header length, but its ninth byte is
    the opening brace of the header.
    """
    if prefix.startswith(_ZIP):
        return True
    return (
        len(prefix) >= 2
        and prefix[0] == 0x80
        and prefix[1] in _PICKLE_PROTOCOLS
        and prefix[8:9] != b"{"
    )


def conversion_command(files: Sequence[Path], output: Path) -> str:
    """A shell command that turns pickled state dicts into one safetensors file.

    ``weights_only=True`` makes torch's unpickler refuse everything but tensors and plain
    containers. Tensors are cloned, since safetensors refuses tensors that share memory.
    """
    # JSON's quotes are Python's too, and they survive the shell's single quotes unescaped.
    names = json.dumps([str(file) for file in files], ensure_ascii=False)
    code = (
        "import torch, safetensors.torch as s; w = {}; "
        f'[w.update(torch.load(f, map_location="cpu", weights_only=True)) for f in {names}]; '
        'w = w.get("state_dict", w); '
        "s.save_file({k: v.clone().contiguous() for k, v in w.items()}, "
        f'{json.dumps(str(output), ensure_ascii=False)}, metadata={{"format": "pt"}})'
    )
    return f"python -c {shlex.quote(code)}"


def pickle_error(*files: Path) -> CheckpointError:
    """The refusal, with the command that converts these very files."""
    first = files[0]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    output = _output_name(files)
    return CheckpointError(
        f"{first}{more} is a pickle, and loading a pickle runs whatever code it holds; "
        "safetensors was wanted",
        hint=f"if you trust where it comes from, convert it: {conversion_command(files, output)}",
    )


def _output_name(files: Sequence[Path]) -> Path:
    first = files[0]
    if first.suffix not in PICKLE_SUFFIXES:  # a pickle under another name must not be overwritten
        return first.with_name(first.name + ".converted.safetensors")
    if len(files) > 1 or first.name == "pytorch_model.bin":
        return first.with_name("model.safetensors")
    return first.with_suffix(".safetensors")
