"""A decoder's session in ONNX Runtime: caches go round as the runtime's own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.caches import CROSS
from toolkit.errors import BundleError
from toolkit.feeds import caches_of
from toolkit.generation.source import Source
from toolkit.runtime import open_session

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Decoder", "Device", "State"]

_Array = npt.NDArray[Any]
Device = Literal["cpu", "cuda"]


@dataclass
class State:
    """What a decoder knows after some tokens.

    Attributes:
        mask: 1 for tokens, 0 for padding: int64 [rows, positions].
        caches: The runtime's values by input name.
        source: What was read before, where the decoder has an encoder.
    """

    mask: _Array
    caches: Mapping[str, onnxruntime.OrtValue]
    source: Source | None = None


class Decoder:
    """Runs a graph with caches, one model or several fused.

    Each step binds the caches of the step before as they are: on a GPU they never leave it, and
    nowhere are they copied through Python.
    """

    def __init__(
        self,
        graph: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
        *,
        device: Device = "cpu",
        threads: int = 0,
    ) -> None:
        """Open a session.

        Args:
            graph: The ONNX file.
            inputs: Its inputs.
            outputs: Names of its outputs.
            device: ``cpu`` or ``cuda``.
            threads: For the runtime; 0 for one on each core.

        Raises:
            BundleError: If the graph is no decoder with caches.
        """
        found = caches_of(inputs, outputs)
        if found is None:
            encoder = any(name.startswith(CROSS) for name in outputs)
            raise BundleError(
                f"{graph.parent} is no decoder with caches: it takes"
                f" {', '.join(spec.name for spec in inputs[:4])}",
                hint="it is an encoder: name the decoder first, and this one with --encoder"
                if encoder
                else "export a causal model with cache: true",
            )
        self.caches = found
        self._device = device
        self._session = open_session(graph, provider=device, threads=threads)
        self._presents = {name: found.present(name) for name in found.past}
        self._ids = next(spec for spec in inputs if spec.name == found.ids)

    def start(self, rows: int, source: Source | None = None) -> State:
        """No token yet; ``source`` is what the encoder made of as many rows."""
        empty = self.caches.empty(rows)
        values = {name: self._value(array) for name, array in empty.items()}
        return State(np.zeros((rows, 0), np.int64), values, source)

    def step(self, ids: _Array, mask: _Array, state: State) -> tuple[_Array, State]:
        """Read tokens.

        Args:
            ids: int64 [rows, new].
            mask: 1 where they are tokens, 0 where padding: int64 [rows, new].
            state: After the tokens before; it stays as it is.

        Returns:
            Logits of what follows the last position, float [rows, vocabulary], and the state.
        """
        whole = np.concatenate([state.mask, mask], axis=1)
        binding = self._session.io_binding()
        for name, array in self._plain(ids, whole, state.source).items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        crossed = {} if state.source is None else state.source.caches
        for name, value in (*state.caches.items(), *crossed.items()):
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        for name in self._presents.values():
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        caches = dict(zip(self._presents, presents, strict=True))
        return logits.numpy()[:, -1], State(whole, caches, state.source)

    def reorder(self, state: State, rows: Sequence[int]) -> State:
        """The state of other rows: ``rows[i]`` becomes row i. Nothing is copied if none moves.

        Rows that change places have one source, so that stays where it is.
        """
        if list(rows) == list(range(len(state.mask))):
            return state
        index = np.asarray(rows)
        caches = {n: self._value(value.numpy()[index]) for n, value in state.caches.items()}
        return State(state.mask[index], caches, state.source)

    def _plain(self, ids: _Array, mask: _Array, source: Source | None) -> dict[str, _Array]:
        """Inputs that are no caches; padding has position 1, as in Hugging Face's generation."""
        found = {self.caches.ids: ids.astype(self._ids.dtype)}
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        positions[mask == 0] = 1
        for spec in self.caches.inputs:
            if source is not None and spec.role == "mask":
                found[spec.name] = source.mask.astype(spec.dtype)
            elif spec.name == self.caches.mask:
                found[spec.name] = mask.astype(spec.dtype)
            elif spec.name == self.caches.positions:
                found[spec.name] = positions[:, -ids.shape[1] :].astype(spec.dtype)
        return found

    def _value(self, array: _Array) -> onnxruntime.OrtValue:
        import onnxruntime as ort  # noqa: PLC0415  (an optional extra; the session is open by now)

        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)
