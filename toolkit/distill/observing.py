"""A model with its outputs by name and, beside them, tensors from inside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from toolkit.errors import RecipeError
from toolkit.sources.heads import Head

__all__ = ["Observed"]

_HIDDEN, _ATTENTION = "hidden.", "attention."


class Observed(nn.Module):
    """A module of ``toolkit.sources``, which takes tensors by name and gives a tuple.

    ``hidden.{i}`` and ``attention.{i}`` are those that transformers gives, of the decoder where
    there are two halves; any other name that is no output is the path of a submodule, as
    ``named_modules`` calls it (of a factory's own module), and means its output, or the first of
    several.
    """

    def __init__(
        self, module: nn.Module, outputs: Sequence[str], inside: Sequence[str] = ()
    ) -> None:
        """Take a module over.

        Args:
            module: The model.
            outputs: What its tuple holds, in order.
            inside: Names of what is wanted besides.

        Raises:
            RecipeError: If there is nothing of such a name.
        """
        super().__init__()
        self.module = module
        self.outputs = tuple(outputs)
        self._inside: tuple[str, ...] = ()
        self._seen: dict[str, Tensor] = {}
        self.watch(inside)

    def watch(self, inside: Sequence[str]) -> None:
        """Look for ``inside`` from now on, besides what is looked for already.

        Raises:
            RecipeError: If there is nothing of such a name.
        """
        new = [name for name in inside if name not in (*self.outputs, *self._inside)]
        states = [name for name in new if name.startswith((_HIDDEN, _ATTENTION))]
        if states:
            self._watch_states(states)
        within = dict(_own(self.module).named_modules())
        for name in new:
            if name not in states:
                self._watch_module(name, within)
        self._inside = (*self._inside, *new)

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Everything by its name; ``feeds`` are exactly the module's inputs."""
        self._seen.clear()
        found = self.module(**feeds)
        said = dict(zip(self.outputs, found, strict=True))
        said.update(self._seen)
        self._seen.clear()
        return said

    def _watch_states(self, names: Sequence[str]) -> None:
        if not isinstance(self.module, Head):
            raise RecipeError(
                f"{names[0]!r} is asked of a model that is no Hugging Face checkpoint",
                hint="name a module in it: " + ", ".join(_children(self.module)),
            )
        wanted: dict[str, tuple[str, int]] = {}
        for name in names:
            kind, _, place = name.partition(".")
            if not place.isdigit():
                raise RecipeError(f"{name!r} is not of the form {kind}.0, {kind}.1, …")
            wanted[name] = ("hidden_states" if kind + "." == _HIDDEN else "attentions", int(place))

        def ask(_module: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            for kind, _ in wanted.values():
                given[f"output_{kind}"] = True
            return args, given

        def keep(_module: nn.Module, _args: Any, found: Any) -> None:
            for name, (kind, place) in wanted.items():
                self._seen[name] = _state(found, kind, place, name)

        self.module.model.register_forward_pre_hook(ask, with_kwargs=True)
        self.module.model.register_forward_hook(keep)

    def _watch_module(self, name: str, within: Mapping[str, nn.Module]) -> None:
        if name not in within or not name:
            raise RecipeError(
                f"the model has no output and no module {name!r}",
                hint="it has " + ", ".join((*self.outputs, *_children(self.module))),
            )

        def keep(_module: nn.Module, _args: Any, found: Any) -> None:
            self._seen[name] = found if isinstance(found, Tensor) else found[0]

        within[name].register_forward_hook(keep)


def _state(found: Any, kind: str, place: int, name: str) -> Tensor:
    states = getattr(found, f"decoder_{kind}", None)
    if states is None:
        states = getattr(found, kind, None)
    if states is None or place >= len(states) or states[place] is None:
        count = 0 if states is None else len(states)
        raise RecipeError(
            f"the model has no {name!r}: it gives {count} of that kind",
            hint="hidden.0 are the embeddings, attention.0 is the first layer's",
        )
    state: Tensor = states[place]
    return state


def _own(module: nn.Module) -> nn.Module:
    """What names of modules are relative to: a source's wrapper is left out."""
    inner = getattr(module, "model", None) or getattr(module, "module", None)
    return inner if isinstance(inner, nn.Module) else module


def _children(module: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, _ in _own(module).named_modules() if name)[:8]
