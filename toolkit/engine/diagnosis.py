"""What the parser and the builder said, put into words a user can act on."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import graphs
from toolkit.engine.api import ParserError
from toolkit.errors import EngineError

__all__ = ["builder_message", "crash", "parser_message", "unranged", "with_origins"]

_ORIGINS = 3  # nodes of which it is said
# Assertions of which nothing is left but the expression.
_NOTHING_SAID = {
    "false": "the parser does not take it",
    "node.input().size() == function.input().size()": (
        "the call has another number of inputs than its function"
    ),
}

# The part of an assertion that is C++; what follows it is written for people.
_ASSERTION = re.compile(r"^Assertion failed: .*?: (?=\S)", re.DOTALL)
_QUOTED = re.compile(r'^.+ && "(?P<text>[^"]*)"$', re.DOTALL)
_PREFIX = re.compile(
    r"^(?:Invalid Node - \S+ )?(?:\w+::)?\w+: Error Code \d+: "
    r"(?:(?:API Usage Error|Internal Error|Shape Error|Myelin) \()?(?:\[[^\]]*\] )?"
)
_PLACE = re.compile(r"\.? In \w+ at \S+\)*\s*$")
# What a parser without a driver adds to every error, and is no part of it.
_DRIVER = re.compile(r"\s*\[checkMacros\.cpp::catchCudaError::\d+\].*$", re.DOTALL)

_KNOWN = {
    "Turing": "leave compute capability 7.5 out, or export in float16",
    "Plugin not found": (
        "the operator is neither a standard one nor a function of the model; "
        "export it as standard operators"
    ),
    "ConditionalOutputLayer|then/else subgraphs": (
        "both branches of an If need as many outputs as each other, of the same types and shapes"
    ),
    "MyelinCheckException: utils.cpp|myelinOpSetInput": (
        "often an If whose branches differ in shape, or what stands in one: toolkit check names it"
    ),
    r"(?i)unsupported (?:\w+ )*type|not support \w+ types|to TensorRT data type|of same type"
    r"|same input types|identical types": (
        "cast to one of float32, float16, bfloat16, int32 and int64 in front of this node"
    ),
    r"(?i)does(?: not|n't) (?:currently )?support|is not supported|unsupported": (
        "toolkit check names what each version refuses, and what to write in its place"
    ),
    r"(?i)timing cache": (
        "a kernel is not in the timing cache: build without --timing-cache-strict, which adds it"
    ),
    "libnvinfer_lean": "install the lean runtime of this TensorRT, or leave version_compatible out",
    r"graph_jit\.cpp:\d+: CHECK\(status == CUDA_SUCCESS\)": (
        "TensorRT-RTX needs an NVIDIA driver for engines that can be refitted or are stripped: "
        "build there, or leave refit and strip_weights out"
    ),
    "insufficient memory|out of memory|OutOfMemory|within workspace limit": (
        "give the builder more memory (memory: workspace), or free GPU memory"
    ),
    "no implementation|any implementation": (
        "whatever it says, this is most often too little memory: raise memory: workspace or free "
        "GPU memory; otherwise no kernel takes this node's types and shapes"
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
    text = _ASSERTION.sub("", _DRIVER.sub("", error.desc().strip()))
    quoted = _QUOTED.match(text)
    text = quoted["text"] if quoted else _plain(text)
    text = _NOTHING_SAID.get(text, text).rstrip(".")
    if not error.node_operator():
        return text
    stack = error.local_function_stack()
    within = f" in function {stack[-1]}" if stack else ""
    return f"node {error.node_name()!r} ({error.node_operator()}){within}: {text}"


def builder_message(text: str) -> EngineError:
    """The error for the last thing the builder logged before it gave up."""
    said = _plain(text) or "it gave no reason"
    return EngineError(f"the engine builder failed: {said}", hint=_hint(said))


def _plain(text: str) -> str:
    """Without the name of the call in front and the place in the source behind."""
    text = _PREFIX.sub("", " ".join(text.split()))
    while _PLACE.search(text):
        text = _PLACE.sub("", text)
    if text.count(")") > text.count("("):
        text = text.removesuffix(")")
    return text.rstrip(".")


def with_origins(error: EngineError, model: Path) -> EngineError:
    """The error, saying of the nodes that it names which module of PyTorch they came from.

    Args:
        error: What the parser or the builder said.
        model: The ONNX file it is about, whose nodes keep where they came from.
    """
    try:
        known = graphs.origins(model)
    except graphs.GraphError:
        return error
    named = [name for name in known if _names(error.message, name)]
    # A name may be the beginning of another; the longest is the one that is meant.
    meant = [name for name in named if not any(name != o and name in o for o in named)]
    if not meant:
        return error
    said = "; ".join(f"{name} is {known[name]}" for name in meant[:_ORIGINS])
    return EngineError(f"{error.message}; {said}", hint=error.hint)


def _names(text: str, name: str) -> bool:
    pattern = rf"(?<![\w/]){re.escape(name)}(?![\w/]|\.\w)"
    inside = f"{name}_OutputLayer" in text or f"{name}_InputLayer" in text
    return inside or re.search(pattern, text) is not None


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
        title: The name of the builder or runtime.
        code: The process's return code; negative is the number of the signal that killed it.
        phase: The build phase it was in; empty when it had not begun.
        stderr: What it wrote to standard error.
    """
    where = f" during {phase!r}" if phase else ""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    lines = stderr.strip().splitlines()
    said = f": {lines[-1].strip()}" if lines else ""
    return EngineError(
        f"the {title} crashed ({how}){where}{said}",
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
