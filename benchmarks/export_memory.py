"""Peak memory of ``toolkit export``, against the size of what it exports."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks import models
from benchmarks.measure import Run, peak_memory
from benchmarks.members import Member
from benchmarks.rows import Row

__all__ = ["run"]

BOUND = 2.5
MIB = 2**20


def run(*, quick: bool) -> list[Row]:
    """Export three multilayer perceptrons, three BERTs of transformers, and a Mixtral of 2 GiB.

    The first are ensembles, the last has its experts behind conditionals. All are for ONNX Runtime,
    with the proof. The peak is that of the whole command, memory-mapped pages included, less what
    ``import torch`` alone takes. Libraries cost the same whatever is exported, so the quick run
    with its small members has no bound.
    """
    torch_alone = peak_memory([sys.executable, "-c", "import torch"])
    rows = [Row("python -c 'import torch', peak", torch_alone.peak / MIB, "MiB")]
    every = {"3 MLPs": write_mlps, "3 BERTs": write_berts, "a Mixtral": write_mixtral}
    for name, write in every.items():
        with tempfile.TemporaryDirectory() as folder:
            size = write(Path(folder), quick=quick)
            done = export(Path(folder))
        rows += [
            Row(
                f"{name}: (peak - import torch) / sum of member files",
                (done.peak - torch_alone.peak) / size,
                "x",
                bound=None if quick else BOUND,
            ),
            Row(f"{name}: sum of member files", size / MIB, "MiB"),
            Row(f"{name}: toolkit export, peak", done.peak / MIB, "MiB"),
        ]
    return rows


def export(folder: Path) -> Run:
    """Export ``folder/recipe.yaml`` in a process of its own.

    Raises:
        RuntimeError: If the export fails, with what it printed.
    """
    toolkit = Path(sys.executable).with_name("toolkit")
    log = folder / "log"
    command = [str(toolkit), "export", str(folder / "recipe.yaml"), "-o", str(folder / "bundle")]
    done = peak_memory([*command, "--allow-code"], str(log))
    if done.code != 0:
        raise RuntimeError(f"toolkit export exited with {done.code}:\n{log.read_text()}")
    return done


def write_mlps(folder: Path, *, quick: bool) -> int:
    """Three factories with random weights, 200 MB each (10 MB when quick); returns their size."""
    kwargs = {"inputs": 256, "width": 700 if quick else 4000, "depth": 4, "classes": 1000}
    # Beside the recipe under a name of its own, where a user's factory would lie.
    shutil.copy(models.__file__, folder / "bench_models.py")
    member = Member("benchmarks.models:mlp", kwargs)
    sizes = [member.write(folder / f"{seed}.safetensors", seed) for seed in range(3)]
    members = [
        {"factory": "bench_models:mlp", "kwargs": kwargs, "weights": f"{seed}.safetensors"}
        | {"name": f"mlp_{seed}"}
        for seed in range(3)
    ]
    inputs = {"inputs": {"input": "float32[batch, 256]"}, "shapes": {"batch": [1, 4, 8]}}
    _write_recipe(folder, members, inputs)
    return sum(sizes)


def write_berts(folder: Path, *, quick: bool) -> int:
    """Three Hugging Face folders with random weights, 265 MB each (4 MB when quick)."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = BertConfig(
        vocab_size=4000 if quick else 30522,
        hidden_size=128 if quick else 768,
        num_hidden_layers=2 if quick else 6,
        num_attention_heads=8 if quick else 12,
        intermediate_size=512 if quick else 3072,
        num_labels=10,
    )
    for seed in range(3):
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder / f"bert_{seed}")
    members = [{"checkpoint": f"bert_{seed}"} for seed in range(3)]
    _write_recipe(folder, members, {"shapes": {"batch": [1, 2, 4], "sequence": [1, 16, 32]}})
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def write_mixtral(folder: Path, *, quick: bool) -> int:
    """A Hugging Face folder of random weights, 2.2 GB (4 MB when quick), most of them experts'."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = MixtralConfig(
        vocab_size=1000 if quick else 16000,
        hidden_size=64 if quick else 1024,
        intermediate_size=128 if quick else 2048,
        num_hidden_layers=2 if quick else 5,
        num_local_experts=16,
        num_experts_per_tok=2,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    MixtralForCausalLM(config).save_pretrained(folder / "mixtral")
    shapes = {"shapes": {"batch": [1, 1, 2], "sequence": [1, 4, 16]}, "parity": {"cases": 1}}
    _write(folder, {"checkpoint": "mixtral"}, {**shapes, "export": {"experts": "conditionals"}})
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def _write_recipe(
    folder: Path, members: list[dict[str, Any]], interface: Mapping[str, Any]
) -> None:
    ensemble = {"combine": "linear", "output": "logits", "members": members}
    _write(folder, {"ensemble": ensemble}, interface)


def _write(folder: Path, model: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
    recipe = {"model": model, **rest, "target": "onnx"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
