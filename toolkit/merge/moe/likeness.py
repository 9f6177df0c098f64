"""How far experts are from the base whose attention they will work with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from toolkit.errors import MergeError
from toolkit.merge.models import Model
from toolkit.merge.moe.families import FEED_FORWARD
from toolkit.merge.relatedness import DOUBTFUL, UNRELATED, sampled_products
from toolkit.merge.tensors import FLOATS, elements

__all__ = ["check_experts"]

_TENSORS = 32


def check_experts(base: Model, experts: Mapping[str, Model], *, force: bool) -> tuple[str, ...]:
    """Warnings about experts that are not, or not only by their feed-forward layers, fine-tunes.

    Looks at the first elements of a sample of tensors.

    Raises:
        MergeError: If an expert looks unrelated to the base and ``force`` is not given.
    """
    found: list[str] = []
    for label, expert in experts.items():
        if label != base.label:
            found += _feed_forward(base, expert, force=force)
            found += _the_rest(base, expert)
    return tuple(found)


def _feed_forward(base: Model, expert: Model, *, force: bool) -> Iterator[str]:
    names = [name for name in base.tensors if FEED_FORWARD.match(name)]
    cosines = []
    for products in _sampled(base, expert, names):
        norms = math.sqrt(products[0, 0]) * math.sqrt(products[1, 1])
        if 0 < norms < math.inf:
            cosines.append(float(products[0, 1]) / norms)
    cosine = float(np.median(cosines)) if cosines else 1.0
    if cosine >= DOUBTFUL:
        return
    told = (
        f"the feed-forward layers of {expert.label} and {base.label} have a median cosine of "
        f"{cosine:.2f}, where fine-tunes of one checkpoint have 0.9 and more"
    )
    if cosine < UNRELATED and not force:
        raise MergeError(
            f"{told}: an expert works with the base's attention, and these have not learned to",
            hint="take fine-tunes of the base as experts, or give --force to do it all the same",
        )
    yield told + ("; taken because of --force" if cosine < UNRELATED else "")


def _the_rest(base: Model, expert: Model) -> Iterator[str]:
    """How far the weights that are not taken are from those that stand in for them."""
    names = [
        name
        for name, tensor in base.tensors.items()
        if not FEED_FORWARD.match(name)
        and tensor.dtype in FLOATS
        and name in expert.tensors
        and expert.tensors[name].shape == tensor.shape
    ]
    distances = []
    for products in _sampled(base, expert, names):
        # Rounding alone can make the difference of equal sums negative.
        apart = max(float(products[0, 0] - 2 * products[0, 1] + products[1, 1]), 0.0)
        if products[0, 0] > 0:
            distances.append(math.sqrt(apart / products[0, 0]))
    if distances and max(distances) > 1e-6:
        yield (
            f"attention, norms and embeddings of {expert.label} are not taken; they differ from "
            f"the base's by {np.median(distances):.2%} (median over {len(distances)} tensors, at "
            f"most {max(distances):.2%})"
        )


def _sampled(base: Model, expert: Model, names: list[str]) -> Iterable[np.ndarray]:
    step = max(len(names) // _TENSORS, 1)
    for name in names[::step]:
        if elements(base.tensors[name].shape):
            yield sampled_products([base.tensors[name], expert.tensors[name]])
