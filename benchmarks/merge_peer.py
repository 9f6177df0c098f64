"""mergekit, in a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["command", "install", "run_configs"]

_FOLDER = Path(__file__).parent.parent / "build" / "venvs" / "mergekit"
_PACKAGES = ("mergekit==0.1.5", "torch==2.13.0")
# Runs many configs in one process, because importing mergekit takes longer than small merges.
_SCRIPT = """
import sys, yaml, torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
for config, out in zip(sys.argv[1::2], sys.argv[2::2]):
    torch.manual_seed(0)
    with open(config) as file:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(file)), out, options)
"""


def install() -> Path:
    """The environment's folder for programs; made on first use."""
    programs = _FOLDER / "bin"
    if not (programs / "mergekit-yaml").exists():
        print(f"installing {' '.join(_PACKAGES)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", *_PACKAGES]
        subprocess.run(pip, check=True)
    return programs


def command(config: Path, out: Path) -> list[str]:
    """What its users type, less the model card, which asks a server about the models."""
    program = str(install() / "mergekit-yaml")
    return [
        program,
        str(config),
        str(out),
        "--quiet",
        "--no-copy-tokenizer",
        "--no-write-model-card",
    ]


def run_configs(pairs: list[tuple[Path, Path]], folder: Path) -> None:
    """Merge every (config, out) with ``folder`` as the working folder.

    Raises:
        RuntimeError: If it fails, with the end of what it printed.
    """
    arguments = [str(path.absolute()) for pair in pairs for path in pair]
    done = subprocess.run(
        [str(install() / "python"), "-c", _SCRIPT, *arguments],
        cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"mergekit exited with {done.returncode}:\n{done.stderr[-2000:]}")
