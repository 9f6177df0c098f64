"""Masks that are kept through training: what is zero stays zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from toolkit.errors import MergeError

__all__ = ["Masks"]


@dataclass(frozen=True)
class Masks:
    """Where weights are kept, by parameter name: the zeros of a sparse checkpoint are its masks.

        masks = Masks.of(module)
        masks.hold(module, optimizer)      # from now on every step ends with masks.apply(module)

    Attributes:
        kept: bool, of the parameter's shape; parameters without a mask are left alone.
    """

    kept: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module, least: float = 0.25) -> Masks:
        """The zeros of every matrix that has at least a share ``least`` of them.

        Raises:
            MergeError: If no matrix has.
        """
        found = {}
        for name, parameter in module.named_parameters():
            kept = parameter.detach() != 0
            if parameter.dim() > 1 and float(1 - kept.double().mean()) >= least:
                found[name] = kept
        if not found:
            raise MergeError(
                f"no matrix of the model has {least:.0%} zeros, so there is no mask to keep",
                hint="toolkit sparsify makes a sparse checkpoint",
            )
        return cls(found)

    @torch.no_grad()
    def apply(self, module: nn.Module) -> None:
        """Set what is masked to zero, in place, on whatever device it is."""
        for name, parameter in module.named_parameters():
            if name in self.kept:
                parameter.masked_fill_(~self.kept[name].to(parameter.device), 0)

    def hold(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Apply the masks after every step of an optimizer, until the handle is removed.

        Momentum of masked weights goes on, and does nothing: the mask has the last word.
        """
        self.apply(module)

        def after(*_: object) -> None:
            self.apply(module)

        return optimizer.register_step_post_hook(after)
