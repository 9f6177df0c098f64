"""What a router computes, held against every way to call an operator of gating."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import helper

from graphs.contracts import DOMAIN, VERSION
from graphs.moe.blocks import ExpertBlock
from graphs.moe.routers import Router, RouterError, evaluate
from graphs.ops import CONTRACTS

__all__ = ["OUTPUTS", "GatingCall", "agreeing"]

Array = npt.NDArray[np.generic]

OUTPUTS = ("weights", "ids", "token_of_row", "row_of_slot", "offsets", "active")
_TOLERANCE = 1e-5  # of a weight, relative: orders of sums differ between spellings
_HALF_TOLERANCE = 4e-3


@dataclass(frozen=True)
class GatingCall:
    """One way to call an operator of gating.

    Attributes:
        op_type: ``TopKGating`` or ``GroupedTopKGating``.
        sizes: Its attributes that are whole numbers.
        bias: The name of an initializer [E]; None for zeros.
        scale: What weights are multiplied by.
    """

    op_type: str
    sizes: tuple[tuple[str, int], ...]
    bias: str | None = None
    scale: float = 1.0

    @property
    def attributes(self) -> dict[str, int | float]:
        """All of the node's attributes."""
        return {**dict(self.sizes), "scale": self.scale}


def agreeing(router: Router, block: ExpertBlock, likely: GatingCall | None) -> GatingCall:
    """The call that agrees with a router.

    Raises:
        RouterError: If none does.
    """
    logits, weights, ids = router.evaluate()
    logits = logits.reshape(-1, logits.shape[-1])
    if ids.ndim != 2 or weights.shape != ids.shape:
        raise RouterError(f"its weights have shape {weights.shape}, its ids {ids.shape}")
    half = router.weights.dtype != ir.DataType.FLOAT
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    wanted = _spread_out(weights, ids, block.num_experts)
    biases = _biases(router)
    sizes = (("num_experts", block.num_experts), ("k", ids.shape[1]))
    # The layers of another model of an ensemble may have other sizes.
    alike = likely is not None and set(sizes) <= set(likely.sizes)
    first = [_renamed(likely, biases)] if likely is not None and alike else []
    for call in (*first, *_candidates(router, block.num_experts, ids.shape[1], list(biases))):
        found = _run(call, logits, None if call.bias is None else biases[call.bias])
        scale = float(wanted.sum() / found.sum()) if found.sum() else 0.0
        if np.allclose(found * scale, wanted, rtol=tolerance, atol=tolerance * wanted.max()):
            return replace(call, scale=call.scale * _tidy(scale, tolerance))
    raise RouterError("no way of gating that is known chooses the same experts and weights")


def _renamed(call: GatingCall, biases: dict[str, Array]) -> GatingCall:
    """The call of another layer with this layer's bias."""
    if call.bias is None or not biases:
        return replace(call, bias=None)
    return replace(call, bias=next(iter(biases)))


def _tidy(scale: float, tolerance: float) -> float:
    """A factor as somebody wrote it into a configuration, if that is within what was measured."""
    for digits in range(7):
        rounded = round(scale, digits)
        if rounded and abs(rounded / scale - 1) < tolerance / 8:
            return rounded
    return scale


def _spread_out(weights: Array, ids: Array, count: int) -> npt.NDArray[np.float64]:
    """[T, E], zero where an expert was not chosen."""
    table = np.zeros((len(ids), count))
    np.put_along_axis(table, ids.astype(np.int64), weights.astype(np.float64), axis=1)
    return table


def _candidates(router: Router, count: int, top_k: int, biases: list[str]) -> Iterator[GatingCall]:
    """Calls that the constants of a router allow, the usual ones first."""
    sizes = (("num_experts", count), ("k", top_k))
    for normalize in (1, 0):
        yield GatingCall("TopKGating", (*sizes, ("normalize", normalize)))
    whole = {
        int(number)
        for array in router.constants()
        if array.dtype == np.int64
        for number in array.ravel()
    }
    groups = sorted(n for n in whole if 1 < n < count and count % n == 0)
    ways = [(1, 1, 1), *product(groups, [n for n in sorted(whole) if n >= 1], (2, 1))]
    scoring = product([*biases, None], ways, (1, 0), (1, 0))
    for bias, (number, kept, group_top), sigmoid, normalize in scoring:
        if kept <= number and group_top <= count // number and top_k <= kept * count // number:
            attributes = (
                *sizes, ("normalize", normalize), ("sigmoid", sigmoid), ("groups", number),
                ("top_groups", kept), ("group_top", group_top),
            )  # fmt: skip
            yield GatingCall("GroupedTopKGating", attributes, bias)


def _run(call: GatingCall, logits: Array, bias: Array | None) -> npt.NDArray[np.float64]:
    """The weights that an operator gives, [T, E]."""
    feeds = {"logits": logits.astype(np.float32)}
    count = logits.shape[1]
    if call.op_type == "GroupedTopKGating":
        feeds["bias"] = np.zeros(count, np.float32) if bias is None else bias.astype(np.float32)
    node = helper.make_node(call.op_type, list(feeds), OUTPUTS, domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(*each) for each in call.attributes.items())
    function = CONTRACTS[call.op_type].function(20)
    values = [helper.make_tensor_value_info(name, 1, array.shape) for name, array in feeds.items()]
    graph = helper.make_graph(
        [node], "gating", values, [helper.make_tensor_value_info(n, 0, None) for n in OUTPUTS[:2]]
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(
        graph, opset_imports=imports, functions=[ir.serde.serialize_function(function)]
    )
    weights, ids = evaluate(model, feeds)
    return _spread_out(weights, ids, count)


def _biases(router: Router) -> dict[str, Array]:
    """Constants of a router that could be a correction bias, by name."""
    found: dict[str, Array] = {}
    for value in router.given:
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point():
            array = tensor.numpy()
            if array.shape == (router.num_experts,):
                found[str(value.name)] = array
    return found
