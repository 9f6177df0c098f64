"""A runner under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from toolkit.artifacts import TensorSpec
from toolkit.runtime.base import Feeds, Outputs, Runner
from toolkit.runtime.wrapping import Wrapped

__all__ = ["Renamed"]


class Renamed(Wrapped):
    """Takes feeds under shared names and hands them on under the runner's own."""

    def __init__(
        self, runner: Runner, rename: Mapping[str, str], outputs: Mapping[str, str] | None = None
    ) -> None:
        """Wrap ``runner``.

        Args:
            runner: The model.
            rename: From its own input names to the shared ones.
            outputs: Likewise for outputs.
        """
        super().__init__(runner)
        self._rename = rename
        self._outputs = outputs or {}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The runner's inputs under the shared names."""
        return tuple(replace(spec, name=self._shared(spec.name)) for spec in self.inner.inputs)

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the model once."""
        return self.shared(self.inner(self.own(feeds)))

    def own(self, feeds: Feeds) -> Feeds:
        """The feeds under the runner's own names."""
        return {spec.name: feeds[self._shared(spec.name)] for spec in self.inner.inputs}

    def shared(self, found: Outputs) -> Outputs:
        """The runner's own outputs under the shared names."""
        return {self._outputs.get(name, name): array for name, array in found.items()}

    def _shared(self, name: str) -> str:
        return self._rename.get(name, name)
