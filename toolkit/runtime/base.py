"""The protocol every runtime follows."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec

__all__ = ["Array", "Feeds", "Outputs", "Runner"]

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]
Outputs = dict[str, Array]


class Runner(Protocol):
    """Runs one model. Entering loads it, leaving frees it; calling maps feeds to outputs.

    ``name`` is what reports call it, for example ``onnxruntime cpu, optimised`` or
    ``pytorch float64``. Feeds are keyed by input name; extra keys are ignored.
    """

    @property
    def name(self) -> str:
        """What reports call this runtime."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs it needs."""

    def __enter__(self) -> Runner:
        """Load the model."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the model."""

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the model once."""
