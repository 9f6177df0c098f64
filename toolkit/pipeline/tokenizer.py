"""The tokenizer that goes with a bundle, and the check that its members share one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from toolkit.errors import RecipeError
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
    """Copy the first Hugging Face member's tokenizer files.

    Raises:
        RecipeError: If two members read one ``input_ids`` through different vocabularies.
    """
    members = [
        (name, leaf.origin, leaf.rename.get("input_ids", "input_ids"))
        for name, leaf in plan.leaves()
        if isinstance(leaf.origin, HuggingFaceSource)
    ]
    first: dict[str, tuple[str, Any]] = {}
    for name, source, ids in members:
        vocabulary = _vocabulary(source.folder)
        if vocabulary is None:
            continue
        known_name, known = first.setdefault(ids, (name, vocabulary))
        if known != vocabulary:
            raise RecipeError(
                f"members {known_name!r} and {name!r} share the input {ids!r}, but their "
                "tokenizers differ, so the same ids mean different text",
                hint=f"give one an input of its own: rename: {{input_ids: {name}_input_ids}}",
            )
    for _, source, _ in members[:1]:
        for file in _FILES:
            if (source.folder / file).is_file():
                shutil.copyfile(source.folder / file, folder / file)
        _write_ends(source.folder, folder / "generation_config.json")


def _write_ends(model: Path, out: Path) -> None:
    """Where a folder says only in ``config.json`` which tokens begin and end a text, say it too."""
    if out.exists():
        return
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    ends = {key: config[key] for key in _ENDS if config.get(key) is not None}
    if ends.get("eos_token_id") is not None:
        out.write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")


def _vocabulary(folder: Path) -> Any:
    """What decides which id a text becomes; None where the folder has no fast tokenizer."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: content.get(key) for key in ("model", "added_tokens", "normalizer")}
