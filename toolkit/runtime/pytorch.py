"""Runs a source in PyTorch on the CPU, in any floating-point precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from toolkit.artifacts import TensorSpec
from toolkit.runtime.base import Feeds, Outputs
from toolkit.runtime.watching import Watcher
from toolkit.runtime.widening import is_large, widen_by_blocks
from toolkit.sources import Source
from toolkit.sources.base import torch_dtype

__all__ = ["TorchRunner"]


class TorchRunner:
    """PyTorch's own answer, eager, without gradients.

    In ``float64`` every intermediate is float64 too: models that compute norms or rotary angles
    in an explicit float32 are lifted (``_Float64Mode``), so the result is a reference for them. A
    large model has one block of layers in float64 at a time (``toolkit.runtime.widening``).
    """

    def __init__(self, source: Source, dtype: str = "float32", member: str | None = None) -> None:
        """Take a source.

        Args:
            source: The model.
            dtype: What it is computed in.
            member: Its path in an ensemble (empty outside one), to tell which experts its sparse
                layers choose, see ``toolkit.runtime.choices``; None leaves them unwatched.
        """
        self._source = source
        self._member = member
        self._watcher: Watcher | None = None
        self._dtype = torch_dtype(dtype)
        self._module: nn.Module | None = None
        self.name = f"pytorch {dtype}"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The source's inputs."""
        return self._source.inputs

    def __enter__(self) -> TorchRunner:
        """Load the weights."""
        self._module = self._loaded()
        if self._member is not None:
            watcher = Watcher(self._module, self._member)
            self._watcher = watcher if watcher.layers else None
        return self

    def _loaded(self) -> nn.Module:
        if self._dtype is torch.float64 and is_large(self._source):
            module = self._source.load("float32")
            widen_by_blocks(module)
            return module
        return self._source.load(str(self._dtype).removeprefix("torch."))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the weights."""
        self._module = self._watcher = None

    def __call__(self, feeds: Feeds) -> Outputs:
        """Floating-point feeds are converted to the runner's dtype first."""
        if self._module is None:
            raise RuntimeError("TorchRunner is used outside its with block")
        tensors = {spec.name: self._tensor(feeds[spec.name]) for spec in self.inputs}
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self._dtype is torch.float64:
                stack.enter_context(_Float64Mode())
            told = {} if self._watcher is None else stack.enter_context(self._watcher.watching())
            results = self._module(**tensors)
        found = zip(self._source.outputs, results, strict=True)
        return {**{name: _array(result) for name, result in found}, **told}

    def _tensor(self, value: np.ndarray[Any, Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def _array(result: torch.Tensor) -> np.ndarray[Any, Any]:
    """As numpy; half precision is widened, as exported graphs widen their outputs."""
    array: np.ndarray[Any, Any] = result.float().numpy() if result.itemsize == 2 else result.numpy()
    return array


class _Float64Mode(TorchFunctionMode):
    """Turns every request for float32 inside the model into float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        lifted = {name: _lift(value) for name, value in (kwargs or {}).items()}
        return func(*map(_lift, args), **lifted)


def _lift(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
