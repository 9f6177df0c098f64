"""The tokenizer that goes with a bundle, and the tokens that end its texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from toolkit.pipeline.plan import Plan
from toolkit.sources import HuggingFaceSource

__all__ = ["copy_tokenizer"]

_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def copy_tokenizer(plan: Plan, folder: Path) -> None:
    """Copy the first Hugging Face member's tokenizer files: the ids of an ensemble are its."""
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
    if out.exists():
        return
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    ends = {key: config[key] for key in _ENDS if config.get(key) is not None}
    if ends.get("eos_token_id") is not None:
        out.write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")
