"""Which tensor of PyTorch lies where in a graph, found by content, and its new value put there.

The exporter names most weights after their tensors, but not those that it transposed or folded, and
fusing stores equal ones once. So what decides is bytes: the old weights are laid down in every way
that an export has, and a weight of the graph stands for each tensor whose bytes it holds. Its new
value is theirs, which have to agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

import graphs
from toolkit.artifacts import Shapes
from toolkit.errors import RefitError
from toolkit.progress import Progress, silent
from toolkit.refit.probing import reaching
from toolkit.refit.variants import Variant, as_array, digest_of, laid_down, ways
from toolkit.sources import Source

__all__ = ["AGAIN", "Leaf", "Place", "Refit", "refit_graph"]

AGAIN = "toolkit refit --reexport exports the new weights afresh instead"

Tensors = Iterator[tuple[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Leaf:
    """One model of a graph.

    Attributes:
        name: Its path in the ensemble.
        prefix: What names of its weights begin with in the graph.
        old: What the graph was exported from: a source, or an ONNX file.
        new: What has the new weights; None where they are the old ones.
        dtype: The precision it was exported in.
    """

    name: str
    prefix: str
    old: Source | Path
    new: Source | None
    dtype: str


@dataclass(frozen=True)
class Place:
    """A weight of the graph, or one piece of it along its first axis."""

    name: str
    piece: int | None = None

    def __str__(self) -> str:
        return self.name if self.piece is None else f"{self.name}[{self.piece}]"


@dataclass(frozen=True)
class Refit:
    """What was done.

    Attributes:
        replaced: Weights of the graph with a new value.
        kept: Floating-point weights of more than one number that are no tensor's: constants.
        unread: Tensors whose value has changed and which no output depends on.
    """

    replaced: tuple[str, ...]
    kept: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class _Origin:
    leaf: str
    tensor: str
    variant: Variant

    def __str__(self) -> str:
        return f"{self.leaf}: {self.tensor} ({self.variant})"


@dataclass
class _Index:
    """Places by content, and what they stand for."""

    known: dict[Place, bytes] = field(default_factory=dict)
    sizes: set[tuple[str, int]] = field(default_factory=set)
    experts: set[int] = field(default_factory=set)
    by_content: dict[tuple[str, bytes], list[Place]] = field(default_factory=dict)
    origins: dict[Place, list[_Origin]] = field(default_factory=dict)
    tensors: dict[tuple[str, str], tuple[tuple[int, ...], bytes]] = field(default_factory=dict)
    single: set[Place] = field(default_factory=set)

    def add(self, place: Place, array: npt.NDArray[Any]) -> None:
        digest = digest_of(array)
        self.known[place] = digest
        self.sizes.add((array.dtype.name, array.nbytes))
        self.by_content.setdefault((array.dtype.name, digest), []).append(place)
        last = place.name.rpartition(".")[2]
        if last.isdigit():
            self.experts.add(int(last))
        if array.size == 1 or not _is_float(array):
            self.single.add(place)

    def learn(self, leaf: Leaf) -> None:
        """Find the places of a model's tensors."""
        for name, array in _tensors(leaf.old, leaf.dtype):
            self.tensors[leaf.name, name] = array.shape, digest_of(array)
            found: dict[Place, list[Variant]] = {}
            for variant, made in ways(array, self.sizes, self.experts):
                for place in self.by_content.get((made.dtype.name, digest_of(made)), ()):
                    found.setdefault(place, []).append(variant)
            for place, variants in found.items():
                own = place.name == f"{leaf.prefix}module.{name}"
                # One number, or whole ones, are equal by chance: there the name has to agree.
                if place in self.single and not own:
                    continue
                for variant in variants[:1] if own else variants:
                    self.origins.setdefault(place, []).append(_Origin(leaf.name, name, variant))

    def of(self, leaf: Leaf) -> dict[str, list[tuple[Place, Variant]]]:
        """The places of every tensor of a model."""
        found: dict[str, list[tuple[Place, Variant]]] = {}
        for place, origins in self.origins.items():
            for origin in origins:
                if origin.leaf == leaf.name:
                    found.setdefault(origin.tensor, []).append((place, origin.variant))
        return found


def refit_graph(
    path: Path, leaves: Sequence[Leaf], shapes: Shapes, progress: Progress = silent
) -> Refit:
    """Put new weights into the graph at ``path``, whose files are written in place.

    Args:
        path: The graph; a copy, because after an error it is neither the old nor the new one.
        leaves: Every model that it was made from.
        shapes: The range of each of their inputs' dimensions.
        progress: Told of every model.

    Raises:
        RefitError: If a tensor was folded into something else, or equal weights part, naming it.
        graphs.GraphError: If the graph cannot be read or written.
    """
    index = _indexed(path, leaves, progress)
    settled: dict[Place, tuple[bytes, _Origin]] = {}
    replaced: dict[str, None] = {}
    unread: list[str] = []
    with graphs.WeightPatch(path) as patch:
        for leaf in sorted(leaves, key=lambda leaf: leaf.new is not None):
            if leaf.new is None:
                _keep(index, leaf, settled)
                continue
            progress(f"replace weights of {leaf.name}", 0, 0)
            changed: list[str] = []
            known = index.of(leaf)
            for name, array in _checked(index, leaf):
                places = known.get(name, [])
                for place, variant in places:
                    _settle(index, settled, place, _Origin(leaf.name, name, variant), array)
                    if settled[place][0] != index.known[place]:
                        made = laid_down(variant, array)
                        assert made is not None
                        patch.put(place.name, made, place.piece)
                        replaced[place.name] = None
                if not places and digest_of(array) != index.tensors[leaf.name, name][1]:
                    changed.append(name)
            unread += _unread(leaf, tuple(changed), shapes)
    kept = [str(place) for place in index.known if place.piece is None]
    kept = [name for name in kept if _is_constant(index, Place(name))]
    return Refit(tuple(replaced), tuple(kept), tuple(unread))


def _is_constant(index: _Index, place: Place) -> bool:
    pieces = {found.name for found in index.origins}
    return place.name not in pieces and place not in index.single


def _indexed(path: Path, leaves: Sequence[Leaf], progress: Progress) -> _Index:
    """Whole weights first; those that are no tensor's may be several, one behind the other."""
    weights = graphs.Weights(path)
    index = _Index()
    for name in weights:
        index.add(Place(name), weights[name])
    for leaf in leaves:
        progress(f"find weights of {leaf.name}", 0, 0)
        index.learn(leaf)
    pieces = _Index(tensors=index.tensors)
    for name in weights:
        array = weights[name]
        if Place(name) not in index.origins and _is_float(array) and array.ndim > 1:
            for piece, part in enumerate(array if len(array) <= _MOST_PIECES else ()):
                pieces.add(Place(name, piece), part)
    if pieces.known:
        for leaf in leaves:
            pieces.learn(leaf)
        _merge(index, pieces)
    return index


_MOST_PIECES = 1024


def _merge(index: _Index, pieces: _Index) -> None:
    """Take over weights of which every piece is a tensor's."""
    whole: dict[str, list[Place]] = {}
    for place in pieces.known:
        whole.setdefault(place.name, []).append(place)
    for places in whole.values():
        if all(place in pieces.origins for place in places):
            for place in places:
                index.known[place] = pieces.known[place]
                index.origins[place] = pieces.origins[place]


def _tensors(source: Source | Path, dtype: str) -> Tensors:
    if isinstance(source, Path):
        yield from graphs.Weights(source).items()
        return
    module = source.load(dtype)
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            yield name, as_array(tensor)


def _checked(index: _Index, leaf: Leaf) -> Tensors:
    """The new tensors, which must be called and shaped as the old ones.

    Raises:
        RefitError: If they are not.
    """
    assert leaf.new is not None
    wanted = {name: shape for (owner, name), (shape, _) in index.tensors.items()
              if owner == leaf.name}  # fmt: skip
    seen = set()
    for name, array in _tensors(leaf.new, leaf.dtype):
        if name not in wanted or array.shape != wanted[name]:
            shape = list(wanted[name]) if name in wanted else "no such tensor"
            raise RefitError(
                f"{leaf.name}: found {name} {list(array.shape)}, wanted {shape}",
                hint="the new weights must be of the same architecture; toolkit export exports it",
            )
        seen.add(name)
        yield name, array
    lacking = sorted(set(wanted) - seen)
    if lacking:
        raise RefitError(f"{leaf.name}: the new weights lack {lacking[0]}, wanted all old names")


def _keep(index: _Index, leaf: Leaf, settled: dict[Place, tuple[bytes, _Origin]]) -> None:
    """A model that stays keeps its places as they are."""
    for place, origins in index.origins.items():
        own: Iterable[_Origin] = (origin for origin in origins if origin.leaf == leaf.name)
        for origin in own:
            settled.setdefault(place, (index.known[place], origin))


def _settle(
    index: _Index,
    settled: dict[Place, tuple[bytes, _Origin]],
    place: Place,
    origin: _Origin,
    array: npt.NDArray[Any],
) -> None:
    made = laid_down(origin.variant, array)
    assert made is not None
    digest = digest_of(made)
    earlier = settled.setdefault(place, (digest, origin))
    if earlier[0] != digest:
        raise RefitError(
            f"{place} stands for {earlier[1]} and for {origin}, which were equal and part now",
            hint=f"equal weights are stored once; {AGAIN}",
        )
    if made.dtype != array.dtype and digest != index.known[place]:
        misfit = graphs.half_misfit(made.dtype.name, array)
        if misfit:
            raise RefitError(
                f"{place} is in {made.dtype.name}, and its new value {misfit}: an export would "
                "keep what reads it in float32",
                hint=AGAIN,
            )


def _unread(leaf: Leaf, changed: tuple[str, ...], shapes: Shapes) -> list[str]:
    """Changed tensors that are nowhere in the graph, because no output depends on them.

    Raises:
        RefitError: If one does: it was folded into something else.
    """
    if not changed:
        return []
    assert not isinstance(leaf.old, Path)
    folded = reaching(leaf.old, changed, shapes)
    if folded:
        more = f" and {len(folded) - 1} more" if len(folded) > 1 else ""
        raise RefitError(
            f"{leaf.name}: {folded[0]}{more} has changed, and was folded into other weights when "
            "it was exported, wanted its own bytes in the graph",
            hint=AGAIN,
        )
    return [f"{leaf.name}: {name}" for name in changed]


def _is_float(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
