"""The command line. ``toolkit --help`` loads nothing but the standard library."""

from toolkit.cli.main import main

__all__ = ["main"]
