"""What a parser made of a graph, held against the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import graphs
from toolkit.engine.fit import Needs, lacking_to_run, read_engine
from toolkit.engine.messages import NetworkFacts, Result, Tensor
from toolkit.engine.options import EngineOptions
from toolkit.errors import EngineError, ToolkitError

__all__ = ["held_against", "opened_notes"]

_FLOATS = {"float64", "float32", "float16", "bfloat16"}

Ranges = Mapping[str, tuple[int, int, int]]


def held_against(model: Path, profiles: Sequence[Ranges], found: NetworkFacts) -> list[str]:
    """Hold a network against the ONNX file that it was parsed from.

    Args:
        model: The ONNX file.
        profiles: The ranges of its dimensions that were asked for.
        found: What was read back.

    Returns:
        What differs and is no error: a type or a conditional that is not in the graph, or is
        nowhere in the network.

    Raises:
        EngineError: If an input or output differs in name, type or size, or a profile in its
            shapes.
    """
    graph = graphs.describe(model)
    _tensors("input", graph.inputs, found["inputs"])
    _tensors("output", graph.outputs, found["outputs"])
    _profiles(profiles, found)
    return list(_notes(graphs.census(model), found))


def _tensors(kind: str, asked: Sequence[graphs.TensorInfo], found: Sequence[Tensor]) -> None:
    names = [tensor.name for tensor in asked], [tensor["name"] for tensor in found]
    if names[0] != names[1]:
        raise EngineError(
            f"the engine has the {kind}s {', '.join(names[1])}, the graph has {', '.join(names[0])}"
        )
    for wanted, tensor in zip(asked, found, strict=True):
        shape = wanted.shape if wanted.shape is not None else tuple(tensor["shape"])
        sizes = zip(shape, tensor["shape"], strict=False)
        same = len(shape) == len(tensor["shape"]) and all(
            a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in sizes
        )
        if wanted.dtype != tensor["dtype"] or not same:
            there = f"{tensor['dtype']}[{', '.join(map(str, tensor['shape']))}]"
            raise EngineError(
                f"the engine has the {kind} {wanted.name!r} as {there}, the graph has {wanted}"
            )


def _profiles(asked: Sequence[Ranges], found: NetworkFacts) -> None:
    """Every shape of every profile, computed again from the names of dimensions."""
    for number, ranges in enumerate(found["ranges"]):
        for tensor in found["inputs"]:
            there = ranges.get(tensor["name"])
            wanted = [
                [_size(dim, asked[number], step) for dim in tensor["shape"]] for step in range(3)
            ]
            if there is not None and there != wanted:
                raise EngineError(
                    f"profile {number} of the engine has {there} for {tensor['name']!r}, "
                    f"wanted {wanted}"
                )


def _size(dim: int | str | None, ranges: Ranges, step: int) -> int:
    if isinstance(dim, int):
        return dim
    return sum(ranges[name][step] for name in str(dim).split(" + "))


def _notes(graph: graphs.Census, found: NetworkFacts) -> Iterator[str]:
    there = _FLOATS & set(found["dtypes"])
    for name in sorted(there - graph.floats):
        yield f"{found['dtypes'][name]} layers are of {name}, which no value of the graph is"
    for name in sorted((graph.floats & _FLOATS) - there):
        yield f"no layer is of {name}, though values of the graph are"
    least = graph.conditionals - graph.unconditional
    if not least <= found["conditionals"] <= graph.conditionals:
        yield f"{found['conditionals']} conditionals came of {graph.conditionals} If nodes"


def opened_notes(plan: Path, options: EngineOptions, result: Result) -> list[str]:
    """Open a plan that was just built, where that can be, and hold it against its network.

    Returns:
        Why it could not be opened, where there is a GPU that should.

    Raises:
        EngineError: If an input or output of the engine is not the network's.
    """
    if lacking_to_run(options.flavour):
        return []
    try:
        opened = read_engine(plan, Needs(options.flavour, result["version"]), host_code=True)
    except ToolkitError as error:
        return [f"the plan was not opened after it was built: {error.message}"]
    network = result["network"]
    for kind, wanted, found in (
        ("input", network["inputs"], opened["inputs"]),
        ("output", network["outputs"], opened["outputs"]),
    ):
        pairs = [[(tensor["name"], tensor["dtype"]) for tensor in each] for each in (wanted, found)]
        if sorted(pairs[0]) != sorted(pairs[1]):
            raise EngineError(f"the engine has the {kind}s {pairs[1]}, its network {pairs[0]}")
    return []
