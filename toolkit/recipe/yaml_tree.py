"""YAML read as plain data with line numbers, bounded in every direction.

Built from the parser's events rather than by a loader, so that a stranger's file cannot run
code (tags are refused), exhaust memory (aliases count as what they stand for) or exhaust the
stack (depth is counted, not recursed into). Scalars follow YAML 1.2's core schema: ``no`` is
text, ``1e-3`` is a number, ``2024-01-01`` is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from toolkit.errors import RecipeError
from toolkit.recipe.problems import Location, Problem, shown

__all__ = ["FLOAT", "INT", "MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Node", "read_tree"]

MAX_BYTES = 1 << 20
# Sixteen nested models take three levels each; the rest is headroom for what they hold.
MAX_DEPTH = 80
# An alias counts as all the nodes it repeats.
MAX_NODES = 20_000
# Characters of a number; Python refuses to print integers of several thousand digits.
MAX_NUMBER = 200

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


@dataclass
class Node:
    """One YAML value.

    Attributes:
        value: A scalar, a list of nodes, or a map from key to node.
        line: Where it starts, from 1; for a map's entry, where its key starts.
        size: Nodes in it, itself included, with aliases counted in full.
        height: Levels of nesting in it; 0 for a scalar.
    """

    value: Any
    line: int
    size: int = 1
    height: int = 0

    def plain(self) -> Any:
        """The value without line numbers."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, (_, node) in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def line_of(self, path: Location) -> int:
        """The line of the value at ``path``, or of the nearest enclosing one that exists."""
        line, node = self.line, self
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                line, node = node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.line
            else:
                break
        return line


@dataclass
class _Open:
    """A collection whose end has not been read yet."""

    node: Node
    path: Location
    anchor: str | None
    key: tuple[str | None, int] | None = None
    wants_key: bool = field(init=False)

    def __post_init__(self) -> None:
        self.wants_key = isinstance(self.node.value, dict)


def read_tree(text: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document.

    Returns:
        The root, or None for an empty document, and what is wrong with it beyond syntax:
        repeated keys, tags, keys that are no text.

    Raises:
        RecipeError: If it is not YAML, holds several documents or is over a limit.
    """
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error) from error
    except yaml.YAMLError as error:
        raise RecipeError("not YAML: " + " ".join(str(error).split())) from error
    except (ValueError, OverflowError) as error:  # an escape for no character, a number too long
        raise RecipeError(f"not YAML: {error}") from error
    return composer.root, composer.problems


def _syntax_error(error: yaml.MarkedYAMLError) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    context = f" ({error.context})" if error.context else ""
    what = " ".join(f"{error.problem}{context}".split())
    return RecipeError(
        f"{where}not YAML: {what}",
        hint="indent with spaces, and quote text that holds ': ' or starts with a special sign",
    )


class _Composer:
    """Builds the tree from parser events, with a stack of its own."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._total = 0

    def take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None  # the parser marks every event
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise RecipeError(f"line {line}: a second document starts, and one was wanted")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event.anchor, line), line)
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._check_tag(event.tag, line)
            self._count(1, line)
            node = Node({} if mapping else [], line)
            self._stack.append(_Open(node, self._here(), event.anchor))
            self._check_depth(0, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(line)

    def _close(self, line: int) -> None:
        closed = self._stack.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = closed.node
        self._add(closed.node, closed.node.line or line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self._check_tag(event.tag, line)
        self._count(1, line)
        value = _resolve(event.value) if event.implicit[0] else event.value
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise RecipeError(f"line {line}: text {shown(value)} is not valid Unicode")
        node = Node(value, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node, line)

    def _alias(self, anchor: str | None, line: int) -> Node:
        if anchor is None or anchor not in self._anchors:
            raise RecipeError(
                f"line {line}: alias *{anchor} stands for nothing that is complete before it"
            )
        node = self._anchors[anchor]
        self._count(node.size, line)
        self._check_depth(node.height, line)
        return node

    def _count(self, nodes: int, line: int) -> None:
        self._total += nodes
        if self._total > MAX_NODES:
            raise RecipeError(
                f"line {line}: over the limit of {MAX_NODES:,} values, aliases counted in full"
            )

    def _check_depth(self, height: int, line: int) -> None:
        if len(self._stack) + height > MAX_DEPTH:
            raise RecipeError(f"line {line}: nested deeper than the limit of {MAX_DEPTH} levels")

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.append(
                Problem(
                    self._here(),
                    f"found the tag {shown(tag)}, and recipes are plain data without tags",
                    hint="a tag can make a YAML loader build objects or run code; remove it",
                    line=line,
                )
            )

    def _here(self) -> Location:
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.node.value, list):
            return (*top.path, len(top.node.value))
        if top.key is None or top.key[0] is None:
            return top.path
        return (*top.path, top.key[0])

    def _add(self, node: Node, line: int) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        if top.wants_key:
            top.key = (self._key(top, node, line), line)
            top.wants_key = False
            return
        top.node.size += node.size
        top.node.height = max(top.node.height, node.height + 1)
        if isinstance(top.node.value, list):
            top.node.value.append(node)
            return
        assert top.key is not None  # a value follows its key
        name, key_line = top.key
        if name is not None:
            top.node.value.setdefault(name, (key_line, node))
        top.key, top.wants_key = None, True

    def _key(self, top: _Open, node: Node, line: int) -> str | None:
        key = node.value
        if not isinstance(key, str):
            self.problems.append(
                Problem(top.path, f"found the key {_key_text(key)}, wanted text", line=line)
            )
            return None
        if key in top.node.value:
            first = top.node.value[key][0]
            self.problems.append(
                Problem((*top.path, key), f"key is given twice, first on line {first}", line=line)
            )
        return key


def _key_text(key: Any) -> str:
    return "a collection" if isinstance(key, (dict, list)) else shown(key)


def _resolve(text: str) -> Any:
    """The value of a plain scalar under YAML 1.2's core schema."""
    if len(text) > MAX_NUMBER and (INT.fullmatch(text) or FLOAT.fullmatch(text)):
        raise ValueError(f"a number of {len(text):,} characters")
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if INT.fullmatch(text):
        # A leading zero is decimal in the core schema, and int(text, 0) would refuse it.
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text)
    return text
