"""Where a node came from: its members, the PyTorch operator and line of code that was noted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import onnx_ir as ir

__all__ = ["MEMBER", "add_members", "members_of", "source_expression"]

# The key of a node's metadata that names its member in an ensemble, or all that share it.
MEMBER = "member"
_BETWEEN = ", "

_OPERATOR = re.compile(r"target=(?:torch\.ops\.)?([\w.]+)")
_FRAME = re.compile(r'\s*File "(?P<file>[^"]*)", line \d+, in ')
_QUOTED_PATH = re.compile(r"""["']\s*(?:/|[A-Za-z]:\\)""")
_LONGEST = 160


def members_of(node: ir.Node) -> tuple[str, ...]:
    """The members a node belongs to, the one it came from first; none outside ensembles."""
    text = node.metadata_props.get(MEMBER, "")
    return tuple(text.split(_BETWEEN)) if text else ()


def add_members(node: ir.Node, other: ir.Node) -> None:
    """Note that ``node`` now also stands for ``other``."""
    both = tuple(dict.fromkeys((*members_of(node), *members_of(other))))
    if both:
        node.metadata_props[MEMBER] = _BETWEEN.join(both)


def source_expression(metadata: Mapping[str, str]) -> str:
    """For example ``aten.linear.default: query = self.query(hidden)``; empty where unknown.

    The line is the innermost one outside PyTorch's own code. File names are left out, and so is a
    line that holds an absolute path: neither belongs in a file that is shipped.
    """
    operator = _OPERATOR.search(metadata.get("pkg.torch.onnx.fx_node", ""))
    line = _innermost(metadata.get("pkg.torch.onnx.stack_trace", ""))
    if _QUOTED_PATH.search(line) or len(line) > _LONGEST:
        line = ""
    return ": ".join(part for part in (operator[1] if operator else "", line) if part)


def _innermost(trace: str) -> str:
    found = ""
    for file, line in _frames(trace):
        if "/torch/" not in file.replace("\\", "/"):
            found = line
    return found


def _frames(trace: str) -> Iterator[tuple[str, str]]:
    lines = trace.splitlines()
    for number, text in enumerate(lines[:-1]):
        frame = _FRAME.match(text)
        if frame is not None and not _FRAME.match(lines[number + 1]):
            yield frame["file"], " ".join(lines[number + 1].split())
