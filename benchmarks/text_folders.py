"""Folders of the text sample's models, and the files that pruning and distilling them read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["CALIBRATED", "WINDOW", "write_model", "write_passages"]

WINDOW, CALIBRATED = 128, 96


def write_model(text: Any, model: Any, tokenizer: Any, folder: Path) -> None:
    """A model folder with its tokenizer; ``text`` is the sample's module."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {"eos_token": text.END, "pad_token": text.END}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def write_passages(documents: Sequence[str], stream: torch.Tensor, folder: Path) -> torch.Tensor:
    """``train.jsonl``, and ``calibration.jsonl`` of windows [96, 128], which are given too."""
    lines = [json.dumps({"text": document}) for document in documents]
    (folder / "train.jsonl").write_text("\n".join(lines))
    rows = stream[: len(stream) // WINDOW * WINDOW].view(-1, WINDOW)[:CALIBRATED]
    lines = [json.dumps({"input_ids": row}) for row in rows.tolist()]
    (folder / "calibration.jsonl").write_text("\n".join(lines))
    return rows
