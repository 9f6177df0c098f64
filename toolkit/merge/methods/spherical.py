"""Methods on the sphere: all are linear combinations whose coefficients follow from inner products.

A tensor is one vector. Angles, means on the sphere and tangent vectors all stay in the span of the
inputs, so one pass collects the matrix of inner products ``G``, the geometry is done on it in
float64, and a second pass adds up ``sum_i c_i theta_i``. No tensor is ever held whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.kernels import delta_sum, weighted_sum
from toolkit.merge.methods.base import Findings
from toolkit.merge.operands import Operands

__all__ = ["Geometry", "Karcher", "ModelStock", "MultiSlerp", "NuSlerp", "Slerp", "Spherical"]

Array = npt.NDArray[Any]


class Geometry(Protocol):
    """Coefficients from inner products."""

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """``float64[n]`` for ``products`` of shape ``[n, n]``.

        Raises:
            ValueError: If there is no answer, with the reason.
        """


@dataclass(frozen=True)
class Spherical:
    """Apply a geometry to whole tensors, or to the task vectors from the first operand.

    Attributes:
        geometry: What to do with the inner products.
        relative: Whether the first operand is a base; its own coefficient is then 1.
    """

    geometry: Geometry
    relative: bool = False

    def __call__(self, operands: Operands) -> Findings:
        """Merge one tensor, in two passes."""
        products = operands.inner_products()
        origin = int(self.relative)
        try:
            found, findings = self.geometry.coefficients(products[origin:, origin:])
        except ValueError as error:
            raise MergeError(f"tensor {operands.name!r}: {error}") from error
        coefficients = np.concatenate([np.ones(origin), found])
        add = delta_sum if self.relative else weighted_sum
        for start, rows in operands.chunks():
            out = operands.buffer(rows.shape[1])
            add(rows, coefficients, out)
            operands.emit(start, out)
        return findings | {"coefficients": [float(c) for c in found]}


def _cosine(products: Array) -> float:
    norms = math.sqrt(products[0, 0]) * math.sqrt(products[1, 1])
    return float(products[0, 1] / norms) if norms > 0 else 1.0


@dataclass(frozen=True)
class Slerp:
    """``sin((1-t) W)/sin W theta_0 + sin(t W)/sin W theta_1``, ``cos W`` the cosine of the two.

    Shoemake 1985, "Animating rotation with quaternion curves". Where ``|cos W|`` is above
    ``threshold`` it is ``(1-t) theta_0 + t theta_1``. As in mergekit the inputs keep their norms
    and the threshold is 0.9995, so siblings of one base are mostly averaged: raise it to 1 to
    slerp them too. mergekit's cosine is a float32 sum; this one is float64.

    Attributes:
        t: 0 is the base model, 1 the other.
        threshold: Cosine above which vectors count as parallel.
    """

    t: float
    threshold: float = 0.9995

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """Two coefficients."""
        cosine = min(1.0, max(-1.0, _cosine(products)))
        angle = math.acos(cosine)
        if abs(cosine) > self.threshold or math.sin(angle) < 1e-8:
            return np.array([1 - self.t, self.t]), {"branch": "linear", "cosine": cosine}
        pair = [math.sin((1 - self.t) * angle), math.sin(self.t * angle)]
        return np.array(pair) / math.sin(angle), {"branch": "slerp", "cosine": cosine}


@dataclass(frozen=True)
class NuSlerp:
    """Slerp with ``t = w_1 / (w_0 + w_1)``; parallel only where ``sin W`` is 0 to rounding.

    mergekit's; there antiparallel vectors divide by the rounding error of ``sin pi``, here they are
    interpolated linearly.

    Attributes:
        weights: Relative weights of the two models; ``t`` is 0.5 where they add up to 0.
    """

    weights: tuple[float, float]

    @property
    def t(self) -> float:
        """The interpolation parameter."""
        total = sum(self.weights)
        return 0.5 if abs(total) < 1e-6 else self.weights[1] / total

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """Two coefficients."""
        return Slerp(self.t, threshold=1.0).coefficients(products)


def _unit(products: Array) -> tuple[Array, Array]:
    """Norms, and inner products of the unit vectors."""
    norms = np.sqrt(np.diag(products))
    safe = np.where(norms > 0, norms, 1.0)
    return norms, products / np.outer(safe, safe)


@dataclass(frozen=True)
class MultiSlerp:
    """Barycentric interpolation in the tangent space of the weighted mean direction.

    With unit vectors ``u_i`` and ``m = sum w_i u_i / |sum w_i u_i|``: map each ``u_i`` to
    ``u_i - <u_i, m> m``, take the weighted sum ``v``, return ``|m cos|v| + v sin|v|/|v||`` times
    the weighted mean of the norms (Goddard 2024). As mergekit does it.

    Attributes:
        weights: One per model.
        eps: Below this a mean direction counts as zero.
    """

    weights: tuple[float, ...]
    eps: float = 1e-8

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """One coefficient per model."""
        weights = np.array(self.weights)
        norms, cosines = _unit(products)
        length = math.sqrt(max(float(weights @ cosines @ weights), 0.0))
        # Below 1e-7 the square is the rounding error of the inner products.
        if length < max(self.eps, 1e-7):
            if len(weights) == 2:
                return weights, {"branch": "linear"}
            raise ValueError(
                "the weighted sum of the directions is zero, so they have no mean direction; "
                "use other weights"
            )
        mean = weights / length
        # Coefficients, in terms of the unit vectors, of the weighted sum of tangent vectors.
        tangent = weights - float(weights @ (cosines @ mean)) * mean
        size = math.sqrt(max(float(tangent @ cosines @ tangent), 0.0)) + self.eps
        result = mean * math.cos(size) + tangent * (math.sin(size) / size)
        return _rescaled(result, norms, float(weights @ norms)), {"branch": "slerp"}


def _rescaled(on_units: Array, norms: Array, length: float) -> Array:
    """Coefficients of unit vectors, turned into those of the vectors themselves, times length."""
    return np.asarray(length * on_units / np.where(norms > 0, norms, 1.0))


@dataclass(frozen=True)
class Karcher:
    """The Riemannian mean on the sphere, times the mean of the norms.

    Iterates ``u <- exp_u(sum_i a_i log_u(u_i))`` from the normalised arithmetic mean (Karcher 1977)
    until the step is below ``tol``. All models weigh the same, as in mergekit.

    Attributes:
        max_iter: Most steps.
        tol: Angles and steps below this count as zero.
    """

    max_iter: int = 10
    tol: float = 1e-5

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """One coefficient per model; a tensor of zeros takes no part in the direction."""
        norms, cosines = _unit(products)
        share = (norms > self.tol).astype(np.float64)
        if not share.any():
            return np.full(len(norms), 1 / len(norms)), {"steps": 0}
        share /= share.sum()
        mean = self._start(share, cosines)
        steps = 0
        for steps in range(1, self.max_iter + 1):  # noqa: B007  (reported below)
            step = self._step(mean, share, cosines)
            size = math.sqrt(max(float(step @ cosines @ step), 0.0))
            if size < self.tol:
                break
            mean = math.cos(size) * mean + math.sin(size) / size * step
            mean = mean / math.sqrt(float(mean @ cosines @ mean))
        return _rescaled(mean, norms, float(norms.mean())), {"steps": steps}

    def _start(self, share: Array, cosines: Array) -> Array:
        length = math.sqrt(max(float(share @ cosines @ share), 0.0))
        if length >= self.tol:
            return share / length
        first = np.zeros_like(share)
        first[np.flatnonzero(share)[0]] = 1.0
        return first

    def _step(self, mean: Array, share: Array, cosines: Array) -> Array:
        """``sum_i a_i log_mean(u_i)``, in terms of the unit vectors."""
        step = np.zeros_like(mean)
        for i in np.flatnonzero(share):
            dot = min(1.0, max(-1.0, float(cosines[i] @ mean)))
            angle = math.acos(dot)
            if angle >= self.tol and math.sin(angle) > 0:
                towards = -dot * mean
                towards[i] += 1.0
                step += share[i] * angle / math.sin(angle) * towards
        return step


@dataclass(frozen=True)
class ModelStock:
    """``theta_0 + t * mean_i tau_i`` with ``t = n c / (1 + (n - 1) c)``, ``c`` the mean cosine.

    Jang et al. 2024, arXiv:2403.19522, section 4. The paper has one angle; for more than two models
    the cosines of all pairs are averaged, as in mergekit. Operates on task vectors.
    """

    def coefficients(self, products: Array) -> tuple[Array, Findings]:
        """One coefficient per model, all equal."""
        count = len(products)
        norms = np.sqrt(np.diag(products))
        pairs = np.triu_indices(count, 1)
        lengths = np.maximum(np.outer(norms, norms)[pairs], 1e-6)
        cosine = float(np.clip(products[pairs] / lengths, -1, 1).mean())
        ratio = count * cosine / (1 + (count - 1) * cosine) if cosine > -1 / (count - 1) else 0.0
        return np.full(count, ratio / count), {"cosine": cosine, "t": ratio}
