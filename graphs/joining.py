"""Join the members' inputs by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphs.dims import Dim, dims_of
from graphs.errors import GraphError
from graphs.members import Member
from graphs.tensors import values_of
from graphs.tree import Leaf, Stack, Tree, parts_of

__all__ = ["connect", "fed_name", "join_inputs", "name_inputs", "signature"]

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass
class _Shared:
    owner: str
    value: ir.Value


def name_inputs(tree: Tree, members: Mapping[str, Member], prefix: str = "") -> set[str]:
    """Follow the ``rename`` maps from the leaves to the root; fills ``Member.inputs``.

    Returns:
        The names of the inputs at this level.

    Raises:
        GraphError: If a map names an input that its member does not have, or a feed of a stack
            is taken by no stage behind the one it comes from.
    """
    if isinstance(tree, Leaf):
        inside = [members[prefix]]
        names = {name: name for name in members[prefix].inputs}
    else:
        inside = [member for path, member in members.items() if path.startswith(prefix)]
        below = [name_inputs(m, members, f"{prefix}{m.name}/") for m in parts_of(tree)]
        taken = _take_feeds(tree, below, members, prefix) if isinstance(tree, Stack) else set()
        names = {name: name for name in sorted(set().union(*below) - taken)}
    unknown = [key for key in tree.rename if key not in names]
    if unknown:
        raise GraphError(
            f"member {prefix.rstrip('/') or tree.name!r} has no input {unknown[0]!r} to rename",
            hint="its inputs are " + ", ".join(names),
        )
    for member in inside:
        for own, name in member.inputs.items():
            current = own if isinstance(tree, Leaf) else name
            member.inputs[own] = tree.rename.get(current, current)
    return {tree.rename.get(name, name) for name in names}


def fed_name(prefix: str, feed: str) -> str:
    """What the input of a stack's feed is called until it is connected; no input's own name."""
    return f"{prefix}\0{feed}"


def _take_feeds(
    stack: Stack, inputs: Sequence[set[str]], members: Mapping[str, Member], prefix: str
) -> set[str]:
    """Name the inputs that are fed apart from those of the graph; the names they had."""
    order = [stage.name for stage in stack.stages]
    for feed, source in stack.feeds.items():
        first = order.index(source.stage) + 1
        early = [name for name, own in zip(order[:first], inputs, strict=False) if feed in own]
        if early:
            raise GraphError(
                f"stage {prefix + early[0]!r} takes the feed {feed!r}, which comes from stage "
                f"{prefix + source.stage!r}",
                hint="only stages behind that one can take it; others want a name of their own",
            )
        if not any(feed in own for own in inputs[first:]):
            known = ", ".join(sorted(set().union(*inputs[first:]) - set(stack.feeds)))
            raise GraphError(
                f"no stage behind {prefix + source.stage!r} takes the feed {feed!r}",
                hint=f"their inputs are {known or 'feeds only'}",
            )
    for path, member in members.items():
        if path.startswith(prefix):
            for own, name in member.inputs.items():
                if name in stack.feeds:
                    member.inputs[own] = fed_name(prefix, name)
    return set(stack.feeds)


def join_inputs(members: list[Member]) -> dict[str, ir.Value]:
    """Make inputs of the same name one value, in order of first use.

    Symbolic dimensions are matched by position: a member that calls ``N`` what the first member
    calls ``batch`` has ``N`` renamed throughout.

    Returns:
        The inputs of the fused graph by name; feeds under their ``fed_name``.

    Raises:
        GraphError: If two members disagree about dtype or shape of an input.
    """
    shared: dict[str, _Shared] = {}
    for member in members:
        symbols: dict[str, str] = {}
        for value, name in zip(
            list(member.model.graph.inputs), member.inputs.values(), strict=True
        ):
            first = shared.setdefault(name, _Shared(member.name, value))
            if first.value is not value:
                _match(name, first, _Shared(member.name, value), symbols)
        _rename_symbols(member.model, symbols)
        for value, name in zip(
            list(member.model.graph.inputs), member.inputs.values(), strict=True
        ):
            if shared[name].value is not value:
                value.replace_all_uses_with(shared[name].value, replace_graph_outputs=True)
    for name, first in shared.items():
        first.value.name = name
    return {name: first.value for name, first in shared.items()}


def connect(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    feed: str,
    given: ir.Value,
    source: str,
    inputs: Mapping[str, ir.Value],
    taken: ir.Value,
    takers: Sequence[Member],
) -> None:
    """Let ``takers`` take the value ``given`` where they take the input ``taken``.

    Symbolic dimensions that no input of the graph has get the names they have in ``given``.

    Args:
        feed: What errors call it.
        given: An output of an earlier stage.
        source: Stage and output, for errors.
        inputs: As ``join_inputs`` gives them.
        taken: The input.
        takers: All that may use it.

    Raises:
        GraphError: If dtypes or shapes disagree.
    """
    bound = {
        name: name
        for key, value in inputs.items()
        if "\0" not in key and value.shape is not None
        for dim in dims_of(value.shape)
        if isinstance(dim, str)
        for name in _SYMBOL.findall(dim)
    }
    before = signature(taken)
    if given.type != taken.type or not _unify(given, taken, bound):
        raise GraphError(
            f"feed {feed!r} is {signature(given)} where it is given, as {source}, and {before} "
            "where it is taken",
            hint="dtype and shape must agree, symbolic dimensions by name",
        )
    for member in takers:
        _rename_symbols(member.model, bound)
        # An output may be the input itself; a value of another graph cannot stand in its place.
        member.model.graph.outputs.clear()
        passed = ((name, value is taken, value) for name, value in member.outputs.items())
        member.outputs = {name: given if same else value for name, same, value in passed}
    taken.replace_all_uses_with(given)


def signature(value: ir.Value) -> str:
    """``float32[batch, 10]``."""
    dtype = value.dtype.name.lower() if value.dtype is not None else "unknown"
    names = {"float": "float32", "double": "float64"}
    dims = "unknown shape"
    if value.shape is not None:
        dims = ", ".join("?" if dim is None else str(dim) for dim in dims_of(value.shape))
    return f"{names.get(dtype, dtype)}[{dims}]"


def _called(name: str) -> str:
    prefix, fed, feed = name.partition("\0")
    return f"feed {prefix + feed!r}" if fed else f"input {name!r}"


def _match(name: str, first: _Shared, other: _Shared, symbols: dict[str, str]) -> None:
    if first.value.type != other.value.type or not _unify(first.value, other.value, symbols):
        raise GraphError(
            f"{_called(name)} is {signature(first.value)} in member {first.owner!r} and "
            f"{signature(other.value)} in member {other.owner!r}",
            hint="rename one of them if they are different inputs",
        )


def _unify(first: ir.Value, other: ir.Value, symbols: dict[str, str]) -> bool:
    if first.shape is None or other.shape is None:
        first.shape = first.shape if first.shape is not None else other.shape
        return True
    if len(first.shape) != len(other.shape):
        return False
    pairs = list(zip(dims_of(first.shape), dims_of(other.shape), strict=True))
    # What one member leaves open the other decides.
    first.shape = ir.Shape(found if wanted is None else wanted for wanted, found in pairs)
    closed = [pair for pair in pairs if None not in pair and pair[0] != pair[1]]
    return all(_same_symbol(wanted, found, symbols) for wanted, found in closed)


def _same_symbol(wanted: Dim, found: Dim, symbols: dict[str, str]) -> bool:
    both = isinstance(wanted, str) and isinstance(found, str)
    return both and symbols.setdefault(str(found), str(wanted)) == wanted


def _rename_symbols(model: ir.Model, symbols: Mapping[str, str]) -> None:
    changes = {old: new for old, new in symbols.items() if old != new}
    if not changes:
        return
    for value in values_of(model):
        if value.shape is None or value.const_value is not None:
            continue
        dims = [
            _SYMBOL.sub(lambda m: changes.get(m[0], m[0]), dim) if isinstance(dim, str) else dim
            for dim in dims_of(value.shape)
        ]
        value.shape = ir.Shape(dims)
