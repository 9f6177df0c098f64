"""Dispatch: help and version at once, a command by loading its module alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from toolkit._version import __version__
from toolkit.cli.table import COMMANDS, help_text

__all__ = ["main"]

_COMPLETION = ("--install-completion", "--show-completion")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(_dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if "_TOOLKIT_COMPLETE" in os.environ or first in _COMPLETION:
        from toolkit.cli.app import run_all

        return run_all(arguments)
    if first in {"--help", "-h"}:
        return _print(help_text())
    if first == "--version":
        return _print(f"toolkit {__version__}")
    if first in COMMANDS:
        from toolkit.cli.app import run_one

        return run_one(first, arguments[1:])
    return _usage(first)


def _print(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def _usage(first: str) -> int:
    import difflib

    found = f"no command {first!r}" if first else "no command given"
    near = difflib.get_close_matches(first, COMMANDS, n=1)
    hint = f"did you mean toolkit {near[0]}?" if near else "one of " + ", ".join(COMMANDS)
    sys.stderr.write(f"error: {found}\n\nhint: {hint}\n")
    return 2
