"""What runners that hold other runners have in common: they are entered and left together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from toolkit.artifacts import TensorSpec
from toolkit.runtime.base import Runner

__all__ = ["Gathered", "Wrapped"]

_G = TypeVar("_G", bound="Gathered")
_W = TypeVar("_W", bound="Wrapped")


class Wrapped:
    """Around one runner, whose name and inputs it has."""

    def __init__(self, runner: Runner) -> None:
        self.inner = runner
        self.name = runner.name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The runner's inputs."""
        return self.inner.inputs

    def __enter__(self: _W) -> _W:
        """Load the model."""
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the model."""
        self.inner.__exit__(kind, error, traceback)


class Gathered:
    """Around several runners; all are loaded or none."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = tuple(runners)
        self._stack = ExitStack()

    def __enter__(self: _G) -> _G:
        """Load every model."""
        with ExitStack() as stack:
            for runner in self._runners:
                stack.enter_context(runner)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free every model."""
        self._stack.close()
