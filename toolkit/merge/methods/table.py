"""The table of methods: what each is called, what it takes, and how it is built for a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.errors import MergeError
from toolkit.merge.methods.base import Method
from toolkit.merge.methods.elementwise import ArceeFusion, Nearswap, Sce
from toolkit.merge.methods.linear import Fisher, Linear, normalized
from toolkit.merge.methods.parameters import Parameter, Resolved
from toolkit.merge.methods.rows import ByColumn, ByRow
from toolkit.merge.methods.sparsify import Della, Magnitude, Outliers, Random, Sparsifier
from toolkit.merge.methods.spherical import (
    Geometry,
    Karcher,
    ModelStock,
    MultiSlerp,
    NuSlerp,
    Slerp,
    Spherical,
)
from toolkit.merge.methods.task_vectors import Rescale, TaskVectors

__all__ = ["METHODS", "MethodEntry", "find"]


@dataclass(frozen=True)
class MethodEntry:
    """A name and all that a config needs to know of the method.

    Attributes:
        name: ``merge_method`` in a config.
        build: Makes the method of one tensor from its resolved parameters.
        base: What ``base_model`` is: ``none``: only where config and tokenizer come from;
            ``origin``: the origin of task vectors, wanted; ``optional``: the same, if given;
            ``first``: the first of two models; ``member``: a model like the others.
        fewest: Least number of models, an origin not counted.
        most: Largest number.
        shared: Parameters of the merge.
        per_model: Parameters that each model may have its own value of.
        symmetric: Whether the order of models means nothing. They are put into the order of their
            names then, so that it does not show in the last bit either.
    """

    name: str
    build: Callable[[Resolved], Method]
    base: Literal["none", "origin", "optional", "first", "member"] = "none"
    fewest: int = 1
    most: int = 1_000
    shared: tuple[Parameter, ...] = ()
    per_model: tuple[Parameter, ...] = ()
    symmetric: bool = True

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """All by name."""
        return {parameter.name: parameter for parameter in (*self.shared, *self.per_model)}


WEIGHT = Parameter("weight", required=True)
DENSITY = Parameter("density", default=1.0, low=0, above=True, high=1)


def _flag(name: str, *, default: bool, unused: bool = False) -> Parameter:
    return Parameter(name, "flag", default=default, unused=unused)


def _linear(given: Resolved) -> Method:
    weights = given.column("weight")
    if not given.shared["normalize"]:
        return Linear(weights)
    if abs(sum(weights)) < 1e-8:
        raise MergeError(
            f"tensor {given.tensor!r}: the weights {list(weights)} add up to 0, and nothing can be "
            "divided by that",
            hint="set normalize: false to add up without dividing, or change the weights",
        )
    return Linear(normalized(weights))


def _uniform(given: Resolved) -> Method:
    return Linear((1 / len(given.models),) * len(given.models))


def _wise_ft(given: Resolved) -> Method:
    alpha = given.shared["alpha"]
    return Linear((1 - alpha, alpha))


def _passthrough(given: Resolved) -> Method:
    scale = given.column("scale")[0]
    return Linear((1.0 if scale is None else scale,))


def _fisher(given: Resolved) -> Method:
    weights = given.column("weight")
    if min(weights) < 0 or max(weights) == 0:
        raise MergeError(
            f"tensor {given.tensor!r}: the weights {list(weights)} of Fisher diagonals must be at "
            "least 0, and one of them more"
        )
    return Fisher(weights)


def _spherical(geometry: Geometry, given: Resolved) -> Method:
    return Spherical(geometry, relative=given.based)


def _nuslerp(given: Resolved) -> Method:
    first, second = given.column("weight")
    geometry = NuSlerp((first, second))
    if given.shared["nuslerp_flatten"]:
        return _spherical(geometry, given)
    by = ByColumn if given.shared["nuslerp_row_wise"] else ByRow
    return by(geometry, relative=given.based)


def _multislerp(given: Resolved) -> Method:
    weights = given.column("weight")
    if given.shared["normalize_weights"]:
        if abs(sum(weights)) < 1e-8:
            raise MergeError(f"tensor {given.tensor!r}: the weights {list(weights)} add up to 0")
        weights = normalized(weights)
    return _spherical(MultiSlerp(weights, given.shared["eps"]), given)


def _karcher(given: Resolved) -> Method:
    return _spherical(Karcher(given.shared["max_iter"], given.shared["tol"]), given)


def _model_stock(given: Resolved) -> Method:
    by = ByRow if given.shared["filter_wise"] else Spherical
    return by(ModelStock(), relative=True)


def _task_vectors(
    sparsifier: Callable[[Resolved], Sparsifier] | None, *, elect: bool
) -> Callable[[Resolved], Method]:
    def build(given: Resolved) -> Method:
        made = sparsifier(given) if sparsifier else None
        shared = given.shared
        rescale: Rescale = shared["rescale_by"] if shared["rescale"] and made else "none"
        if isinstance(made, Della) and rescale == "density":
            rescale = "none"  # its masks hold 1/p of each entry
        return TaskVectors(
            given.column("weight"),
            made,
            elect=elect,
            normalize=shared["normalize"],
            scale=shared["lambda"],
            rescale=rescale,
        )

    return build


def _magnitude(given: Resolved) -> Sparsifier:
    return Magnitude(given.column("density"), over_model=given.shared["trim"] == "model")


def _random(given: Resolved) -> Sparsifier:
    return Random(given.column("density"), given.models, given.seed)


def _outliers(given: Resolved) -> Sparsifier:
    return Outliers(given.column("density"), given.column("gamma"))


def _della(given: Resolved) -> Sparsifier:
    for density, epsilon in zip(given.column("density"), given.column("epsilon"), strict=True):
        if density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
            raise MergeError(
                f"tensor {given.tensor!r}: density {density:g} and epsilon {epsilon:g} give "
                f"probabilities from {density - epsilon:g} to {density + epsilon:g}, which do not "
                "lie in (0, 1)"
            )
    own = given.shared["rescale"] and given.shared["rescale_by"] == "density"
    return Della(given.column("density"), given.column("epsilon"), given.models, given.seed, own)


def _task_vector_entry(  # noqa: PLR0913  (the columns of the table in TaskVectors)
    name: str,
    sparsifier: Callable[[Resolved], Sparsifier] | None = None,
    *,
    elect: bool = False,
    normalize: bool = False,
    rescale: Literal["density", "l1"] | None = None,
    shared: tuple[Parameter, ...] = (),
    extra: tuple[Parameter, ...] = (),
) -> MethodEntry:
    """An entry of the task-vector family; ``rescale`` is on by default where it is ``density``."""
    choices = ("density", "l1") if rescale == "density" else ("l1",)
    density = DENSITY if sparsifier else replace(DENSITY, unused=True)
    return MethodEntry(
        name,
        _task_vectors(sparsifier, elect=elect),
        base="origin",
        shared=(
            _flag("normalize", default=normalize),
            Parameter("lambda", default=1.0),
            _flag("rescale", default=rescale == "density", unused=sparsifier is None),
            Parameter("rescale_by", "choice", default=rescale or "l1", choices=choices),
            _flag("int8_mask", default=False, unused=True),
            *shared,
        ),
        per_model=(WEIGHT, density, *extra),
    )


_TRIM = Parameter("trim", "choice", default="tensor", choices=("tensor", "model"))
_GAMMA = Parameter("gamma", default=0.01, low=0, high=1)
_EPSILON = Parameter("epsilon", default=0.15, low=0, high=1)

_ENTRIES = (
    MethodEntry("linear", _linear, shared=(_flag("normalize", default=True),), per_model=(WEIGHT,)),
    MethodEntry("uniform_soup", _uniform),
    MethodEntry(
        "wise_ft",
        _wise_ft,
        base="first",
        fewest=2,
        most=2,
        shared=(Parameter("alpha", required=True),),
        symmetric=False,
    ),
    MethodEntry(
        "fisher",
        _fisher,
        per_model=(
            replace(WEIGHT, required=False, default=1.0),
            Parameter("fisher", "path", required=True),
        ),
    ),
    MethodEntry(
        "passthrough",
        _passthrough,
        most=1,
        per_model=(Parameter("scale"),),
        symmetric=False,
    ),
    MethodEntry(
        "slerp",
        lambda given: Spherical(Slerp(given.shared["t"], given.shared["threshold"])),
        base="first",
        fewest=2,
        most=2,
        shared=(
            Parameter("t", required=True),
            Parameter("threshold", default=0.9995, low=0, high=1),
        ),
        symmetric=False,
    ),
    MethodEntry(
        "nuslerp",
        _nuslerp,
        base="optional",
        fewest=2,
        most=2,
        shared=(
            _flag("nuslerp_flatten", default=True),
            _flag("nuslerp_row_wise", default=False),
        ),
        per_model=(WEIGHT,),
    ),
    MethodEntry(
        "multislerp",
        _multislerp,
        base="optional",
        fewest=2,
        shared=(
            _flag("normalize_weights", default=True),
            Parameter("eps", default=1e-8, low=0, above=True),
        ),
        per_model=(WEIGHT,),
    ),
    MethodEntry(
        "karcher",
        _karcher,
        base="member",
        fewest=2,
        shared=(
            Parameter("max_iter", "whole", default=10, low=1),
            Parameter("tol", default=1e-5, low=0, above=True),
        ),
    ),
    _task_vector_entry("task_arithmetic"),
    _task_vector_entry("ties", _magnitude, elect=True, normalize=True, shared=(_TRIM,)),
    _task_vector_entry("dare_linear", _random, rescale="density"),
    _task_vector_entry("dare_ties", _random, elect=True, rescale="density"),
    _task_vector_entry("breadcrumbs", _outliers, extra=(_GAMMA,)),
    _task_vector_entry("breadcrumbs_ties", _outliers, elect=True, extra=(_GAMMA,)),
    _task_vector_entry(
        "della", _della, elect=True, normalize=True, rescale="density", extra=(_EPSILON,)
    ),
    _task_vector_entry("della_linear", _della, rescale="density", extra=(_EPSILON,)),
    MethodEntry(
        "model_stock",
        _model_stock,
        base="origin",
        fewest=2,
        shared=(_flag("filter_wise", default=False),),
    ),
    MethodEntry(
        "sce",
        lambda given: Sce(given.shared["select_topk"], given.shared["min_square"]),
        base="origin",
        shared=(
            Parameter("select_topk", default=1.0, low=0, above=True, high=1),
            Parameter("min_square", default=0.0, low=0),
            _flag("int8_mask", default=False, unused=True),
        ),
    ),
    MethodEntry(
        "nearswap",
        lambda given: Nearswap(given.shared["t"]),
        base="origin",
        most=1,
        shared=(Parameter("t", required=True, low=0),),
    ),
    MethodEntry("arcee_fusion", lambda _given: ArceeFusion(), base="origin", most=1),
)

METHODS: Mapping[str, MethodEntry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> MethodEntry:
    """Look a method up.

    Raises:
        MergeError: If there is none of that name.
    """
    if name == "greedy_soup":
        raise MergeError(
            "greedy_soup needs held-out data to choose by, which a merge has not",
            hint="use: toolkit soup RECIPE OUT",
        )
    if name not in METHODS:
        raise MergeError(
            f"merge_method is {name!r}, and there is none of that name",
            hint="one of " + ", ".join(sorted(METHODS)),
        )
    return METHODS[name]
