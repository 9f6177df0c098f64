"""What fitting a gate and fitting a combiner have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from toolkit.bundle import hash_file
from toolkit.errors import RecipeError
from toolkit.fitting import TrainingOptions
from toolkit.pipeline.fit_data import Data
from toolkit.pipeline.plan import GroupPlan, LeafPlan, Node, Plan, StackPlan
from toolkit.sources import FactorySource

__all__ = ["FitOptions", "described", "output_key", "write_weights"]


@dataclass(frozen=True)
class FitOptions:
    """How weights are fitted.

    Attributes:
        constant: Fit constant weights only.
        share: Of the examples, for validation.
        batch: Examples in a batch.
        window: Most tokens of a text at a time.
        cache: Folder in which the members' outputs are kept for the next time.
        training: Of a gate or a combiner; its seed is the recipe's.
    """

    constant: bool = False
    share: float = 0.2
    batch: int = 64
    window: int = 256
    cache: Path | None = None
    training: TrainingOptions = field(default_factory=TrainingOptions)


def output_key(plan: Plan, data: Data, options: FitOptions, *what: object) -> str:
    """A file name that stands for the examples and for ``what`` speaks about them."""
    digest = hashlib.sha256()
    sizes = (options.share, options.batch, options.window, plan.recipe.seed)
    for part in (data.digest, repr(sizes), repr(plan.inputs), *map(repr, what)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def described(part: Node) -> str:
    """Everything a model's outputs depend on."""
    if isinstance(part, LeafPlan):
        files = [(path.name, hash_file(path).sha256) for path in part.files]
        origin = part.origin
        kwargs = dict(origin.kwargs) if isinstance(origin, FactorySource) else {}
        target = origin.target if isinstance(origin, FactorySource) else ""
        return repr((files, dict(part.rename), target, kwargs, part.outputs))
    if isinstance(part, StackPlan):
        return repr((part.feeds, dict(part.rename), [described(stage) for stage in part.stages]))
    if isinstance(part, GroupPlan):
        return repr((dict(part.rename), [described(below) for below in part.members]))
    rule = None if part.gate is None else part.gate.rule
    how = (part.combine, part.space, part.weights, part.output, dict(part.rename), rule)
    return repr((how, [described(below) for below in part.parts]))


def write_weights(module: nn.Module, target: Path) -> None:
    """Write a trained factory's state dict as safetensors, whole or not at all.

    Raises:
        RecipeError: If it cannot be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415  (only what writes weights needs it)

    inner = module.get_submodule("module")
    state = {name: tensor.detach().clone() for name, tensor in inner.state_dict().items()}
    part = target.with_name(f".{target.name}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecipeError(f"cannot write {target}: {error.strerror or error}") from error
