"""A model built by the user's own Python: ``package.module:callable`` and a safetensors file.

Running it runs that code, so recipes need ``--allow-code``; this module assumes it was given.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.errors import CheckpointError, RecipeError
from toolkit.sources.base import load_weights, torch_dtype

__all__ = ["FactorySource"]


@dataclass(frozen=True)
class FactorySource:
    """``target`` called with ``kwargs`` gives the module; ``weights`` fills it.

    Attributes:
        name: A short name for messages.
        target: ``package.module:callable``.
        weights: A safetensors file with exactly the module's state dict.
        available: The recipe's inputs; ``forward``'s parameters pick theirs by name.
        rename: Parameter name to recipe input, where they differ.
        outputs: Names for what ``forward`` returns.
        kwargs: Arguments of the callable.
        search: Folder put first on the import path while importing, normally the recipe's.
    """

    name: str
    target: str
    weights: Path
    available: tuple[TensorSpec, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits",)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    search: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The weights and, where it can be found, the code."""
        code = inspect.getsourcefile(inspect.unwrap(self._callable))
        return (self.weights, Path(code)) if code else (self.weights,)

    @property
    def description(self) -> str:
        """The factory's name."""
        return f"PyTorch factory {self.target}"

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The recipe's inputs that ``forward`` has parameters for, under ``forward``'s names.

        Raises:
            RecipeError: If a required parameter is no input of the recipe.
        """
        with torch.device("meta"):
            parameters = inspect.signature(self._build().forward).parameters
        return tuple(self._match(parameters))

    def load(self, dtype: str = "float32") -> nn.Module:
        """Build, convert and fill the module.

        Raises:
            CheckpointError: If the weights and the module's state dict differ in names or shapes.
        """
        module = self._build().to(torch_dtype(dtype)).eval()
        missing, surplus = load_weights(module, self.weights)
        if missing or surplus:
            raise CheckpointError(
                f"{self.weights.name} does not fit {self.target}: "
                + "; ".join(_differences(missing, surplus)),
                hint="save the module with safetensors.torch.save_model, or fix the kwargs",
            )
        return _NamedOutputs(module, self.outputs, self.target)

    def untrained(self, seed: int) -> nn.Module:
        """The module as the callable makes it, in training mode: where training starts.

        Its ``module`` is the callable's own, whose state dict ``weights`` is to hold.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._build()
        return _NamedOutputs(module, self.outputs, self.target).train()

    @cached_property
    def _callable(self) -> Any:
        module_name, _, attribute = self.target.partition(":")
        with _import_path(self.search):
            _forget_namesake(module_name, self.search)
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:
                raise RecipeError(
                    f"factory {self.target!r}: cannot import {module_name!r} ({error})",
                    hint="modules are looked for beside the recipe, then among installed packages",
                ) from error
        found = getattr(module, attribute, None)
        if not callable(found):
            names = sorted(n for n, v in vars(module).items() if callable(v) and n[0] != "_")
            raise RecipeError(
                f"factory {self.target!r}: {module_name} has no callable {attribute!r}",
                hint="it has " + ", ".join(names),
            )
        return found

    def _build(self) -> nn.Module:
        try:
            module = self._callable(**self.kwargs)
        except TypeError as error:
            raise RecipeError(
                f"factory {self.target!r} cannot be called with its kwargs: {error}",
                hint=f"its signature is {inspect.signature(self._callable)}",
            ) from error
        if not isinstance(module, nn.Module):
            raise RecipeError(
                f"factory {self.target!r} returned {type(module).__name__}, not a torch.nn.Module"
            )
        return module

    def _match(self, parameters: Mapping[str, inspect.Parameter]) -> Iterator[TensorSpec]:
        by_name = {spec.name: spec for spec in self.available}
        unknown = sorted(set(self.rename) - set(parameters))
        if unknown:
            raise RecipeError(
                f"member {self.name!r} renames {unknown[0]!r}, which forward does not take",
                hint="its parameters are " + ", ".join(parameters),
            )
        for name, parameter in parameters.items():
            spec = by_name.get(self.rename.get(name, name))
            if spec is not None:
                yield TensorSpec(
                    name, spec.dtype, spec.shape, low=spec.low, high=spec.high, role=spec.role
                )
            elif parameter.default is parameter.empty:
                raise RecipeError(
                    f"member {self.name!r} needs an input {name!r}, which the recipe does not have",
                    hint=f"inputs are {', '.join(by_name)}; join them with rename: {{{name}: …}}",
                )


def _differences(missing: list[str], surplus: list[str]) -> Iterator[str]:
    if missing:
        yield "the file lacks " + ", ".join(missing[:5])
    if surplus:
        yield "the module does not take " + ", ".join(surplus[:5])


@contextmanager
def _import_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _forget_namesake(module: str, folder: Path | None) -> None:
    """Another recipe's module may have the same name; Python would give that one again."""
    top = module.partition(".")[0]
    loaded = sys.modules.get(top)
    own = [] if folder is None else [folder / f"{top}.py", folder / top / "__init__.py"]
    file = next((path for path in own if path.is_file()), None)
    if loaded is None or file is None or Path(loaded.__file__ or "").resolve() == file.resolve():
        return
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]


class _NamedOutputs(nn.Module):
    """Turns whatever ``forward`` returns into a tuple aligned with the declared names."""

    def __init__(self, module: nn.Module, outputs: tuple[str, ...], target: str) -> None:
        super().__init__()
        self.module = module
        self._outputs = outputs
        self._target = target

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.module(**inputs)
        if isinstance(result, torch.Tensor):
            found: tuple[torch.Tensor, ...] = (result,)
        elif isinstance(result, Mapping) and set(self._outputs) <= set(result):
            found = tuple(result[name] for name in self._outputs)
        elif isinstance(result, tuple | list):
            found = tuple(result)
        else:
            raise RecipeError(
                f"factory {self._target!r} returned {_shape_of(result)}, "
                f"not the outputs {', '.join(self._outputs)}"
            )
        if len(found) != len(self._outputs):
            raise RecipeError(
                f"factory {self._target!r} returned {len(found)} tensors, but its outputs are "
                f"{', '.join(self._outputs)}",
                hint="name every returned tensor in the member's outputs: […]",
            )
        return found


def _shape_of(result: object) -> str:
    if isinstance(result, Mapping):
        return "a mapping with keys " + ", ".join(map(str, result))
    return f"a {type(result).__name__}"
