"""The tokenizer that goes with a bundle, and the tokens that end its texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError
from toolkit.pipeline.plan import Plan
from toolkit.sources import HuggingFaceSource

__all__ = ["copy_tokenizer"]

_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_STARTS = ("decoder_start_token_id", "forced_bos_token_id")


def copy_tokenizer(plan: Plan, folder: Path) -> None:
    """Copy the first Hugging Face member's tokenizer files: the ids of an ensemble are its.

    Raises:
        CheckpointError: If what says where its texts begin and end cannot be read.
    """
    for _, leaf in plan.leaves():
        if isinstance(leaf.origin, HuggingFaceSource):
            source = leaf.origin.folder
            for file in _FILES:
                if (source / file).is_file():
                    shutil.copyfile(source / file, folder / file)
            _write_ends(source, folder / "generation_config.json")
            return


def _write_ends(model: Path, out: Path) -> None:
    """Where a folder says only in ``config.json`` which tokens begin and end a text, say it too."""
    config = _read(model / "config.json")
    known = _read(out) if out.exists() else None
    wanted = _STARTS if known is not None else (*_ENDS, *_STARTS)
    found = {key: config[key] for key in wanted if config.get(key) is not None}
    if known is None and not found.keys() & {"eos_token_id", "decoder_start_token_id"}:
        return
    if known is None or not found.keys() <= known.keys():
        text = json.dumps({**found, **(known or {})}, indent=2) + "\n"
        out.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path.name} of the first member is no JSON of settings")
    return found
