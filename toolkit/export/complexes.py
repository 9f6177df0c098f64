"""Complex numbers, which rotary embeddings are sometimes written in, on their way to ONNX.

PyTorch's exporter carries them as pairs of real numbers and knows the arithmetic of such pairs, but
not every change of shape. While a model is traced, those are done on the pairs themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["ComplexAsPairs"]

_UNSQUEEZE: tuple[Callable[..., Any], ...] = (torch.Tensor.unsqueeze, torch.unsqueeze)


class ComplexAsPairs(TorchFunctionMode):
    """Inside, axes are added to and taken from complex tensors by way of their pairs [..., 2]."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or the same of the pairs."""
        if func is torch.Tensor.__getitem__ and args[0].is_complex():
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            # An ellipsis would reach over the pairs' own axis.
            own = (slice(None),) if any(part is Ellipsis for part in index) else ()
            return torch.view_as_complex(torch.view_as_real(args[0])[index + own])
        if func in _UNSQUEEZE and args[0].is_complex():
            dim = args[1] if len(args) > 1 else (kwargs or {})["dim"]
            pairs = torch.view_as_real(args[0])
            return torch.view_as_complex(pairs.unsqueeze(dim if dim >= 0 else dim - 1))
        return func(*args, **(kwargs or {}))
