"""The commands: the one list that help, dispatch, completion and the tests read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "help_text"]


@dataclass(frozen=True)
class Command:
    """A command's module, which has a function of its name and ``_command``, and one line."""

    module: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "export": Command("toolkit.cli.export", "Build a recipe into a proven, deployable bundle"),
    "merge": Command("toolkit.cli.merge", "Merge checkpoints into one (mergekit configs)"),
    "soup": Command("toolkit.cli.soup", "Average fine-tunes, chosen by a held-out score"),
    "distill": Command("toolkit.cli.distill", "Teach a small model what an ensemble says"),
    "fit-gate": Command("toolkit.cli.fit_gate", "Fit an ensemble's weights or gate to data"),
    "sparsify": Command("toolkit.cli.sparsify", "Prune a checkpoint to N of M weights (2:4)"),
    "compress": Command("toolkit.cli.compress", "Store a checkpoint without its zeros, and back"),
    "parity": Command("toolkit.cli.parity", "Run a bundle's proof again"),
    "precision": Command("toolkit.cli.precision", "Which parts of a bundle must stay in float32"),
    "generate": Command("toolkit.cli.generate", "Go on with a text, from a decoder bundle"),
    "build": Command("toolkit.cli.build", "Build the engine of a bundle or an ONNX file"),
    "refit": Command("toolkit.cli.refit", "Put new weights into a bundle, and prove it again"),
    "check": Command("toolkit.cli.check", "Show what TensorRT will refuse in a graph"),
    "bench": Command("toolkit.cli.bench", "How fast a bundle is, alone, against another, served"),
    "package": Command("toolkit.cli.package", "Make a Triton model repository, or check one"),
    "serve": Command("toolkit.cli.serve", "Start your Triton on a bundle, for development"),
    "inspect": Command("toolkit.cli.inspect", "Show a checkpoint, ONNX file, bundle, recipe, plan"),
    "doctor": Command("toolkit.cli.doctor", "What this machine can do, and how to mend the rest"),
    "schema": Command("toolkit.cli.schema", "JSON Schema of the recipe, for editors"),
}

_OPTIONS: Mapping[str, str] = {
    "--version": "Show the version and exit",
    "--install-completion": "Install completion for the current shell",
    "--show-completion": "Show completion for the current shell",
    "--help": "Show this message and exit",
}

_EXIT_CODES = "0 ok · 1 error · 2 usage · 3 parity failed · 4 not on this machine · 5 files differ"


def help_text() -> str:
    """What ``toolkit --help`` prints."""
    commands = {name: command.summary for name, command in COMMANDS.items()}
    return "\n".join(
        [
            "Usage: toolkit COMMAND [OPTIONS] ...",
            "",
            "Turn many PyTorch models into one deployable graph, and prove that it computes the",
            "same. Start with: toolkit export RECIPE.yaml -o DIR",
            "",
            "Commands:",
            *_columns(commands),
            "",
            "Options:",
            *_columns(_OPTIONS),
            "",
            "toolkit COMMAND --help explains a command. Every reporting command takes --json.",
            f"Exit codes: {_EXIT_CODES}",
        ]
    )


def _columns(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows)) + 2
    return [f"  {name:<{width}}{text}" for name, text in rows.items()]
