"""Whether models look like descendants of one pre-trained checkpoint.

Averages are only good within one basin of the loss. Fine-tunes of one checkpoint stay in it, and
their weight matrices still point the same way (cosines of 0.9 and more); nets trained from
different random starts end up in different basins, up to a permutation of their units, and their
matrices have cosines around 0 (Frankle et al. 2020, arXiv:1912.05671; Entezari et al. 2022,
arXiv:2110.06296). Norms and biases look alike even then, so only matrices are judged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.kernels import BLOCK, gram, inner_products
from toolkit.merge.plan import MergePlan, OutputTensor
from toolkit.merge.tensors import FLOATS, STORED, Tensor, convert, elements

__all__ = [
    "DOUBTFUL",
    "UNRELATED",
    "check_related",
    "median_cosine",
    "sampled_cosines",
    "sampled_products",
]

# Midway between what unrelated nets and siblings measure; tests/merge/test_relatedness.py trains
# both kinds and holds these numbers against them.
UNRELATED = 0.5
DOUBTFUL = 0.8

_TENSORS = 32
_ELEMENTS = 1 << 16


def sampled_cosines(output: OutputTensor, models: Container[str]) -> dict[tuple[str, str], float]:
    """Cosines between the first elements of a tensor in every two of the given models."""
    sources = [source for source in output.sources if source.model in models]
    products = sampled_products([source.tensor for source in sources])
    found = {}
    for i, k in itertools.combinations(range(len(sources)), 2):
        norm = math.sqrt(products[i, i]) * math.sqrt(products[k, k])
        # A matrix of zeros (a fresh LoRA, a zero-initialised gate) says nothing; one that is not
        # finite is refused when it is merged, with its place.
        if 0 < norm < math.inf:
            found[sources[i].model, sources[k].model] = float(products[i, k]) / norm
    return found


def sampled_products(tensors: Sequence[Tensor]) -> npt.NDArray[Any]:
    """Inner products of the first elements of tensors of one size, ``float64[n, n]``."""
    count = min(_ELEMENTS, elements(tensors[0].shape))
    rows = np.array([_first(tensor, count) for tensor in tensors])
    # Not with BLAS: its threads go on spinning for a while, on cores that are needed next.
    sums = np.zeros((len(rows), len(rows), BLOCK))
    gram(rows, False, 0, 1, sums)
    return np.asarray(inner_products(sums))


def _first(tensor: Tensor, count: int) -> npt.NDArray[Any]:
    stored = np.empty(count, STORED[tensor.dtype])
    tensor.read(0, stored)
    out = np.empty(count, np.float32)
    convert(stored, tensor.dtype, out)
    return out


def median_cosine(plan: MergePlan) -> tuple[float, tuple[str, str]] | None:
    """The smallest, over pairs of models, of the median cosine over a sample of matrices.

    None where no matrix is merged from two models.
    """
    by_pair: dict[tuple[str, str], list[float]] = {}
    for output in _sample(plan):
        for pair, cosine in sampled_cosines(output, plan.models).items():
            by_pair.setdefault(pair, []).append(cosine)
    medians = [(float(np.median(values)), pair) for pair, values in by_pair.items()]
    return min(medians, default=None)


def _sample(plan: MergePlan) -> Iterator[OutputTensor]:
    """Matrices spread evenly over the model."""
    models = set(plan.models)
    matrices = [
        output
        for output in plan.outputs
        if len(output.shape) >= 2
        and min(output.shape) > 1
        and {source.tensor.dtype for source in output.sources} <= set(FLOATS)
        and len({source.model for source in output.sources} & models) > 1
    ]
    step = max(len(matrices) // _TENSORS, 1)
    yield from matrices[::step]


def check_related(plan: MergePlan, *, force: bool) -> tuple[str, ...]:
    """Warnings about models that may not be siblings.

    Raises:
        MergeError: If they look unrelated and ``force`` is not given.
    """
    found = median_cosine(plan)
    if found is None or found[0] >= DOUBTFUL:
        return ()
    cosine, (left, right) = found
    told = (
        f"the weight matrices of {left} and {right} have a median cosine of {cosine:.2f}, where "
        "fine-tunes of one checkpoint have 0.9 and more"
    )
    if cosine >= UNRELATED:
        return (told,)
    if force:
        return (f"{told}; merged because of --force",)
    raise MergeError(
        f"{told}: they do not descend from one checkpoint, and an average of nets from different "
        "starts computes nothing sensible",
        hint="ensemble or distil them instead, or give --force to merge them all the same",
    )
