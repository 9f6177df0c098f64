"""Faults to plant in an exported graph, each a function from a model to the places it has there.

``FAULTS[name](model)`` yields a ``Site`` for every place; ``site.plant()`` changes the model. The
order of places is the same for every copy of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from benchmarks.faults.layout import LAYOUT_FAULTS
from benchmarks.faults.mixing import MIXING_FAULTS
from benchmarks.faults.model import Model, Site
from benchmarks.faults.operators import OPERATOR_FAULTS
from benchmarks.faults.structure import STRUCTURE_FAULTS
from benchmarks.faults.weights import WEIGHT_FAULTS

__all__ = ["FAULTS", "Model", "Site", "choose", "planted"]

FAULTS: Mapping[str, Callable[[Model], Iterator[Site]]] = {
    **WEIGHT_FAULTS,
    **OPERATOR_FAULTS,
    **STRUCTURE_FAULTS,
    **LAYOUT_FAULTS,
    **MIXING_FAULTS,
}


def choose(model: Model, places: int, seed: int) -> list[tuple[str, int]]:
    """Up to ``places`` places of every kind of fault, drawn by the seed, as (kind, number)."""
    rng = np.random.default_rng(seed)
    chosen = []
    for kind, sites in FAULTS.items():
        count = len(list(sites(model)))
        drawn = rng.permutation(count)[:places]
        chosen += [(kind, int(number)) for number in sorted(drawn)]
    return chosen


def planted(healthy: onnx.ModelProto, kind: str, number: int, out: Path) -> Site:
    """Write ``healthy`` with one fault to ``out`` and say where it is."""
    model = Model(healthy)
    site = list(FAULTS[kind](model))[number]
    site.plant()
    # What shapes the exporter noted may no longer be true; ONNX Runtime plans its memory by them.
    del model.proto.graph.value_info[:]
    onnx.save(model.proto, out)
    return site
