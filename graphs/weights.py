"""The initializers of a model, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store

__all__ = ["Weights"]


class Weights(Mapping[str, npt.NDArray[np.generic]]):
    """The initializers of ``path`` by name, those of subgraphs included.

    What lies in a data file is memory-mapped: reading one does not load the others.
    """

    def __init__(self, path: Path) -> None:
        """Read the graph.

        Raises:
            GraphError: If the model cannot be read.
        """
        model = store.load(path)
        common.LiftSubgraphInitializersToMainGraphPass()(model)
        values = model.graph.initializers.items()
        self._tensors: dict[str, ir.TensorProtocol] = {
            name: value.const_value for name, value in values if value.const_value is not None
        }

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = self._tensors[name].numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
