"""An encoder's session: what a decoder with cross-attention needs of its source, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.artifacts import TensorSpec
from toolkit.bundle import Bundle, Manifest
from toolkit.caches import CROSS
from toolkit.errors import BundleError
from toolkit.runtime import open_session

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Encoder", "Source", "check_pair"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """What was read, for every row of a decoder.

    Attributes:
        mask: 1 for tokens, 0 for padding: int64 [rows, positions].
        caches: The runtime's values by name.
        device: Where they lie.
    """

    mask: _Array
    caches: Mapping[str, onnxruntime.OrtValue]
    device: str

    def repeated(self, count: int) -> Source:
        """Every row ``count`` times."""
        if count == 1:
            return self
        import onnxruntime as ort  # noqa: PLC0415  (an optional extra; a session is open by now)

        repeated = {
            name: value.numpy().repeat(count, axis=0) for name, value in self.caches.items()
        }
        caches = {
            name: ort.OrtValue.ortvalue_from_numpy(array, self.device)
            for name, array in repeated.items()
        }
        return Source(self.mask.repeat(count, axis=0), caches, self.device)


class Encoder:
    """Runs an encoder bundle, one model or several side by side.

    Attributes:
        ids: Its token ids [rows, source].
        rows: Most rows at a time.
        longest: Most tokens of a source.
    """

    def __init__(self, bundle: Bundle, *, device: Literal["cpu", "cuda"], threads: int) -> None:
        """Open a session; that it fits a decoder is for ``check_pair`` to say.

        Raises:
            BundleError: If it takes what no text gives.
        """
        manifest = bundle.manifest
        inputs = [tensor.spec() for tensor in manifest.inputs]
        found = next((spec for spec in inputs if spec.name.endswith("input_ids")), None)
        mask = next((spec for spec in inputs if spec.role == "mask"), None)
        other = [spec.name for spec in inputs if spec not in (found, mask)]
        if found is None or other:
            raise BundleError(
                f"{bundle.folder} takes {', '.join(spec.name for spec in inputs)}, wanted token ids"
                " and their mask",
                hint="the encoder of models with inputs of their own cannot generate",
            )
        self.ids = found
        self._mask = mask
        self._outputs = [tensor.name for tensor in manifest.outputs]
        self._device: Literal["cpu", "cuda"] = device
        self._session = open_session(bundle.model, provider=device, threads=threads)
        spans = [manifest.shapes[d] if isinstance(d, str) else (d, d, d) for d in found.shape]
        self.rows, self.longest = (largest for *_, largest in spans)
        self._shortest = spans[1][0]

    def __call__(self, sources: Sequence[Sequence[int]]) -> Source:
        """Read token ids, padded on the right to run as one batch."""
        longest = max(self._shortest, *map(len, sources))
        valid = np.arange(longest) < np.array([len(source) for source in sources])[:, None]
        ids = np.zeros(valid.shape, self.ids.dtype)
        ids[valid] = [token for source in sources for token in source]
        mask = valid.astype(np.int64)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.ids.name, ids)
        if self._mask is not None:
            binding.bind_cpu_input(self._mask.name, mask.astype(self._mask.dtype))
        for name in self._outputs:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        caches = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        kept = {name: value for name, value in caches.items() if name.startswith(CROSS)}
        return Source(mask, kept, self._device)


def check_pair(decoder: Bundle, encoder: Bundle) -> None:
    """Whether the decoder takes what the encoder gives, and both were made of the same weights.

    Raises:
        BundleError: Naming the first cache that differs, or the member.
    """
    hint = "export both with --part from one recipe"
    inputs = [tensor.spec() for tensor in decoder.manifest.inputs]
    given = {tensor.name: tensor.spec() for tensor in encoder.manifest.outputs}
    for spec in inputs:
        if not spec.name.startswith(CROSS):
            continue
        found = given.pop(spec.name, None)
        if found is None:
            raise BundleError(
                f"the decoder {decoder.folder} takes {spec.name!r}, which the encoder "
                f"{encoder.folder} does not give", hint=hint,
            )  # fmt: skip
        if (found.dtype, _sizes(found)) != (spec.dtype, _sizes(spec)):
            raise BundleError(
                f"the encoder {encoder.folder} gives {spec.name!r} as {found}, and the decoder "
                f"{decoder.folder} takes {spec}", hint=hint,
            )  # fmt: skip
    surplus = [name for name in given if name.startswith(CROSS)]
    if surplus:
        raise BundleError(
            f"the encoder {encoder.folder} gives {surplus[0]!r}, which the decoder "
            f"{decoder.folder} does not take", hint=hint,
        )  # fmt: skip
    own, other = _weights(decoder.manifest), _weights(encoder.manifest)
    for member, hashes in other.items():
        if member in own and own[member] != hashes:
            raise BundleError(
                f"member {member!r} of the encoder {encoder.folder} has other weights than in the "
                f"decoder {decoder.folder}", hint=hint,
            )  # fmt: skip


def _sizes(spec: TensorSpec) -> list[int | str]:
    """Dimensions with a size, which a model decides; the others are named and may differ."""
    return [dim if isinstance(dim, int) else "" for dim in spec.shape]


def _weights(manifest: Manifest) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for source in manifest.sources:
        if source.path.endswith(".safetensors"):
            found.setdefault(source.member, set()).add(source.sha256)
    return found
