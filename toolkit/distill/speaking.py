"""Students as the loop asks them: a batch in, logits and whatever else an objective reads out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

from torch import Tensor, nn

from toolkit.distill.rows import flat, row_mask
from toolkit.distill.types import EMBEDDING, Batch, Needs, StudentOutputs, Task
from toolkit.errors import RecipeError
from toolkit.sources.heads import Pooling, pooled

__all__ = ["FactorySpeaker", "HuggingFaceSpeaker", "Said", "speaking"]

# Logits of any shape [..., V], and everything else by name.
Said: TypeAlias = tuple[Tensor | None, dict[str, Tensor]]

_HIDDEN, _ATTENTION, _LAST = "hidden.", "attention.", "last_hidden_state"


class HuggingFaceSpeaker(nn.Module):
    """A transformers model.

    Knows ``hidden.{i}`` and ``attention.{i}``, of the decoder where there are two halves, and of
    sentence encoders ``sentence_embedding`` and ``last_hidden_state``.
    """

    def __init__(
        self, module: nn.Module, task: Task, needs: Needs, names: Sequence[str], pooling: Pooling
    ) -> None:
        super().__init__()
        self.module = module
        self._task: Task = task
        self._needs = needs
        self._names = tuple(names)
        self._pooling = pooling

    def forward(self, batch: Batch) -> Said:
        """Run the model on the inputs of a batch."""
        wanted = self._needs.student
        arguments: dict[str, Any] = {name: batch[name] for name in self._names}
        if self._task in {"causal-lm", "seq2seq-lm"}:
            arguments["use_cache"] = False
        found = self.module(
            **arguments,
            output_hidden_states=any(name.startswith(_HIDDEN) for name in wanted),
            output_attentions=any(name.startswith(_ATTENTION) for name in wanted),
            return_dict=True,
        )
        hidden = {name: self._one(name, found, batch) for name in wanted}
        return getattr(found, "logits", None), hidden

    def _one(self, name: str, found: Any, batch: Batch) -> Tensor:
        half = "decoder_" if self._task == "seq2seq-lm" else ""
        kinds = {
            _HIDDEN: getattr(found, f"{half}hidden_states", None),
            _ATTENTION: getattr(found, f"{half}attentions", None),
        }
        if name == EMBEDDING and hasattr(found, _LAST):
            return pooled(found.last_hidden_state, batch["attention_mask"], self._pooling)
        if name == _LAST and hasattr(found, _LAST):
            last: Tensor = found.last_hidden_state
            return last
        for start, values in kinds.items():
            number = name.removeprefix(start)
            if name.startswith(start) and number.isdigit() and values is not None:
                if int(number) < len(values) and values[int(number)] is not None:
                    one: Tensor = values[int(number)]
                    return one
                raise RecipeError(f"the objective reads {name!r} of the student, and it has "
                                  f"{start}0 to {start}{len(values) - 1}")  # fmt: skip
        raise RecipeError(
            f"the objective reads {name!r} of the student, which does not give that",
            hint="a transformers model gives hidden.{i} and attention.{i}",
        )


class FactorySpeaker(nn.Module):
    """A module of one's own, which takes inputs by keyword and returns a tuple.

    Knows its outputs and, by the path of a module in it, what that module returns.
    """

    def __init__(
        self, module: nn.Module, needs: Needs, names: Mapping[str, str], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        self.module = module
        self._needs = needs
        self._names = dict(names)
        self._outputs = tuple(outputs)
        inner = dict(module.get_submodule("module").named_modules())
        paths = [name for name in needs.student if name not in outputs]
        for name in paths:
            if name not in inner:
                raise RecipeError(
                    f"the objective reads {name!r} of the student, which has no such module",
                    hint="it has " + ", ".join(sorted(filter(None, inner))[:12]),
                )
        self._paths = tuple(paths)

    def forward(self, batch: Batch) -> Said:
        """Run the module on the inputs of a batch."""
        caught: dict[str, Tensor] = {}
        inner = self.module.get_submodule("module")
        with ExitStack() as stack:
            for path in self._paths:
                hook = inner.get_submodule(path).register_forward_hook(_keeps(caught, path))
                stack.callback(hook.remove)
            found = self.module(**{own: batch[shared] for own, shared in self._names.items()})
        named = dict(zip(self._outputs, found, strict=True))
        logits = named.get("logits", found[0]) if self._needs.logits else None
        for name in self._needs.student:
            if name in named:
                caught[name] = named[name]
        return logits, caught


def _keeps(caught: dict[str, Tensor], path: str) -> Any:
    def hook(_module: nn.Module, _given: Any, found: Any) -> None:
        caught[path] = found[0] if isinstance(found, tuple) else found

    return hook


def speaking(said: Said, batch: Batch, task: Task) -> StudentOutputs:
    """What a speaker said, in rows and in float32 at least."""
    logits, hidden = said
    whole = {name: _wide(value) for name, value in hidden.items()}
    rows = None if logits is None else flat(_wide(logits))
    return StudentOutputs(rows, whole, row_mask(task, batch))


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.itemsize == 2 else value
