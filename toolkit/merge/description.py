"""What stands beside the weights: configuration, tokenizer, card, diagnostics, manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit._version import __version__
from toolkit.bundle import MANIFEST, hash_file
from toolkit.errors import MergeError
from toolkit.merge.card import card
from toolkit.merge.config import Part
from toolkit.merge.plan import MergePlan
from toolkit.merge.templates import set_chat_template
from toolkit.merge.write import Written

__all__ = [
    "DIAGNOSTICS",
    "Notes",
    "config_text",
    "manifest",
    "write_description",
    "write_surroundings",
]

DIAGNOSTICS = "merge.json"
_CONFIG = "merge_config.yml"
# Whatever a model folder holds beside config and weights that a tokenizer or processor reads.
_COMPANIONS = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Notes:
    """What a description says beside the plan: the seed, and warnings."""

    seed: int
    warnings: Sequence[str]


def write_surroundings(plan: MergePlan, folder: Path) -> None:
    """Write ``config.json`` and copy the donor's tokenizer and generation config.

    Raises:
        MergeError: If a file cannot be copied.
    """
    if plan.config:
        (folder / "config.json").write_text(_json(plan.config), encoding="utf-8")
    source = plan.donor.folder
    if plan.config and source is not None:
        for name in _COMPANIONS:
            _copy(source / name, folder / name)
    for name, text in plan.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    if plan.chat_template:
        set_chat_template(folder, plan.chat_template)


def _copy(source: Path, target: Path) -> None:
    try:
        if not source.is_file():
            return
        if source.stat().st_size > _MAX_BYTES:
            raise MergeError(f"{source} has more than {_MAX_BYTES:,} bytes, too many for its kind")
        shutil.copyfile(source, target)
    except OSError as error:
        raise MergeError(f"cannot copy {source}: {error.strerror}") from error


def write_description(
    configs: Sequence[Part],
    plan: MergePlan,
    written: Written,
    folder: Path,
    notes: Notes,
) -> None:
    """Write config, ``merge.json``, the card and, last, the manifest."""
    text = config_text(configs)
    (folder / _CONFIG).write_text(text, encoding="utf-8")
    diagnostics = {
        "method": plan.method,
        "seed": notes.seed,
        "warnings": list(notes.warnings),
        "tensors": written.findings,
    }
    (folder / DIAGNOSTICS).write_text(_json(diagnostics), encoding="utf-8")
    (folder / "README.md").write_text(card(plan, text, written, notes.warnings), encoding="utf-8")
    (folder / MANIFEST).write_text(
        _json(manifest(plan, written, folder, notes.seed)), encoding="utf-8"
    )


def config_text(configs: Sequence[Part]) -> str:
    """The documents as YAML, in the order they were made."""
    documents = [c.model_dump(mode="json", exclude_defaults=True) for c in configs]
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def manifest(plan: MergePlan, written: Written, folder: Path, seed: int) -> dict[str, Any]:
    """What went in and what came out; every tensor of every input is accounted for.

    Input files are identified by size and header, not by a hash of all bytes: reading them once
    more would cost as much as merging them.
    """
    others = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name not in written.files]
    files = {p.name: hash_file(p).model_dump() for p in others if p.name != MANIFEST}
    return {
        "format": 1,
        "kind": "merge",
        "toolkit": __version__,
        "method": plan.method,
        "seed": seed,
        "models": {
            reference: {"files": {f.name: _identity(f) for f in model.files}}
            for reference, model in plan.models.items()
        },
        "tensors": {
            o.name: {source.model: source.name for source in o.sources} for o in plan.outputs
        },
        "unused": [
            {"model": model, "tensor": name, "reason": reason}
            for model, name, reason in plan.unused
        ],
        "files": {**written.files, **files},
    }


def _identity(file: Path) -> dict[str, Any]:
    """Size, and the SHA-256 of what safetensors puts first: its length and its header."""
    with file.open("rb") as stream:
        start = stream.read(8)
        header = stream.read(int.from_bytes(start, "little"))
    digest = hashlib.sha256(start + header).hexdigest()
    return {"bytes": file.stat().st_size, "header_sha256": digest}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
