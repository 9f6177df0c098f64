"""Commands as typer applications, and the one place where errors become text and exit codes."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer

from graphs import GraphError
from toolkit.cli.table import COMMANDS
from toolkit.errors import Interrupted, ToolkitError

__all__ = ["build", "run_all", "run_one"]

# Public typer names only its subclass; the base is click's, or typer's own copy of click.
UsageError: type[Any] = typer.BadParameter.__mro__[1]


def build(*names: str) -> typer.Typer:
    """A typer application with the named commands."""
    app = typer.Typer(
        name="toolkit",
        add_completion=len(names) > 1,
        no_args_is_help=True,
        rich_markup_mode="markdown",  # as markup of rich, [default: …] would be a style
    )
    for name in names:
        app.command(name)(_interruptible(_function(name)))
    return app


def run_one(name: str, arguments: list[str]) -> int:
    """Run one command; its module is the only one loaded."""
    command = typer.main.get_command(build(name))
    return _guarded(lambda: command.main(arguments, f"toolkit {name}", standalone_mode=False))


def run_all(arguments: list[str]) -> int:
    """Run with every command loaded, which shell completion needs."""
    command = typer.main.get_command(build(*COMMANDS))
    return _guarded(lambda: command.main(arguments, "toolkit", standalone_mode=False))


def _function(name: str) -> Callable[..., Any]:
    module = importlib.import_module(COMMANDS[name].module)
    function: Callable[..., Any] = getattr(module, f"{name.replace('-', '_')}_command")
    return function


class _Interrupted(Exception):  # noqa: N818  (it is no error of ours)
    """Ctrl-C, as an exception that typer passes on."""


def _interruptible(function: Callable[..., Any]) -> Callable[..., Any]:
    """Report Ctrl-C as such, whatever it was turned into on the way.

    An extension module that is being imported when the signal comes raises ImportError.
    """

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        came: list[int] = []
        ours = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: FrameType | None) -> None:
            came.append(number)
            signal.default_int_handler(number, frame)

        if ours:
            signal.signal(signal.SIGINT, note)
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt as error:
            raise _Interrupted from error
        except Exception as error:
            if came:
                raise _Interrupted from error
            raise
        finally:
            if ours:
                signal.signal(signal.SIGINT, before)

    return command


def _guarded(call: Callable[[], Any]) -> int:
    """Run, and turn every foreseen failure into one line, a hint and an exit code."""
    try:
        result = call()
    except (ToolkitError, GraphError) as error:
        return _fail(error.message, error.hint, getattr(error, "exit_code", 1))
    except UsageError as error:
        context = error.ctx
        where = context.command_path if context else "toolkit"
        return _fail(_one_line(error.format_message()), f"{where} --help", 2)
    except (_Interrupted, KeyboardInterrupt, typer.Abort) as error:
        kept = next((e for e in (error, error.__cause__) if isinstance(e, Interrupted)), None)
        hint = kept.hint if kept else "nothing was left behind; run it again to start over"
        return _fail("interrupted", hint, 130)
    except BrokenPipeError:
        # The reader of our output went away (head, less): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _one_line(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _fail(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else ""))
    return code
