"""What the parser and the builder said, put into words a user can act on."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from toolkit.engine.api import ParserError
from toolkit.errors import EngineError

__all__ = ["builder_message", "crash", "parser_message", "unranged"]

# The part of an assertion that is C++; what follows it is written for people.
_ASSERTION = re.compile(r"^Assertion failed: .*?: (?=\S)", re.DOTALL)
_QUOTED = re.compile(r'^[\w()! ]+ && "(?P<text>.*)"$', re.DOTALL)
_PREFIX = re.compile(r"^(?:IBuilder::\w+|\w+): Error Code \d+: (?:\w+ \(\[[^\]]*\] )?")
_PLACE = re.compile(r"\.? In \w+ at \S+\)*\s*$")

_KNOWN = {
    "Plugin not found": (
        "the operator is neither a standard one nor a function of the model; "
        "export it as standard operators"
    ),
    "Turing": "leave compute capability 7.5 out, or export in float16",
    "insufficient memory|out of memory|OutOfMemory|no implementation": (
        "give the builder more memory (memory: workspace), or free GPU memory"
    ),
    "cudaError 35|driver version is insufficient": (
        "this machine has no NVIDIA driver that is new enough"
    ),
}
"""What the builder says, as a pattern, and what it means; the first that matches is the hint."""


def parser_message(errors: Sequence[ParserError]) -> EngineError:
    """The error for what ``OnnxParser`` found; most telling first."""
    shown = "; ".join(_parser_line(error) for error in errors[:3])
    rest = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    said = shown or "the parser gave no reason"
    return EngineError(
        f"the engine builder cannot use this ONNX file: {said}{rest}", hint=_hint(said)
    )


def _parser_line(error: ParserError) -> str:
    text = _ASSERTION.sub("", error.desc().strip())
    quoted = _QUOTED.match(text)
    text = (quoted["text"] if quoted else text).rstrip(".")
    if not error.node_operator():
        return text
    stack = error.local_function_stack()
    within = f" in function {stack[-1]}" if stack else ""
    return f"node {error.node_name()!r} ({error.node_operator()}){within}: {text}"


def builder_message(text: str) -> EngineError:
    """The error for the last thing the builder logged before it gave up."""
    said = _PLACE.sub("", _PREFIX.sub("", " ".join(text.split()))) or "it gave no reason"
    return EngineError(f"the engine builder failed: {said}", hint=_hint(said))


def unranged(tensor: str, dim: str | None, known: tuple[str, ...]) -> EngineError:
    """The error for a dynamic dimension without a range; ``dim`` is None when it has no name."""
    ranges = ", ".join(known) or "none"
    if dim is None:
        return EngineError(
            f"input {tensor!r} has a dynamic dimension without a name, so it can have no range",
            hint="name the dimension in the ONNX file (dim_param)",
        )
    return EngineError(
        f"input {tensor!r} has the symbolic dimension {dim!r}, which has no range "
        f"(ranges are given for: {ranges})",
        hint=f"add `{dim}: [min, opt, max]` under shapes",
    )


def crash(title: str, code: int, phase: str, stderr: str) -> EngineError:
    """The error for a builder process that ended without an answer.

    Args:
        title: The builder's name.
        code: The process's return code; negative is the number of the signal that killed it.
        phase: The build phase it was in; empty when it had not begun.
        stderr: What it wrote to standard error.
    """
    where = f" during {phase!r}" if phase else ""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    lines = stderr.strip().splitlines()
    said = f": {lines[-1].strip()}" if lines else ""
    return EngineError(
        f"the {title} builder crashed ({how}){where}{said}",
        hint=_crash_hint(code),
    )


def _crash_hint(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the system may have run out of memory: build on a machine with more"
    return (
        "the fault is in NVIDIA's builder; known to crash it: a slice of data-dependent length "
        "inside an If, and operators of plugins it does not have"
    )


def _hint(said: str) -> str:
    return next((hint for pattern, hint in _KNOWN.items() if re.search(pattern, said)), "")
