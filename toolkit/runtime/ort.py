"""Runs an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.artifacts import TensorSpec
from toolkit.errors import CapabilityError, ExportError
from toolkit.runtime.base import Array, Feeds, Outputs

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "PROVIDERS",
    "OrtRunner",
    "Provider",
    "open_session",
    "providers",
    "share_threads",
]

# ONNX Runtime's type strings for the dtypes in ``toolkit.artifacts.DTYPES``.
_DTYPES = {
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


Provider = Literal["cpu", "cuda", "ort-tensorrt"]

# What a session must have first in its list, or it has fallen back to another.
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}

# TF32 keeps 10 bits of the mantissa: with it float32 would be no proof of anything.
_CUDA = ("CUDAExecutionProvider", {"use_tf32": 0})
_ASKED: dict[Provider, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [_CUDA],
    "ort-tensorrt": [("TensorrtExecutionProvider", {}), _CUDA],
}


class OrtRunner:
    """ONNX Runtime, on the CPU or on a GPU without TF32.

    Attributes:
        name: ``onnxruntime cpu``, and whether graph optimisations are off.
    """

    def __init__(  # noqa: PLR0913  (independent options of a session)
        self,
        path: Path,
        *,
        optimise: bool = True,
        threads: int = 0,
        weights: Path | None = None,
        provider: Provider = "cpu",
        spinning: bool = True,
        label: str = "",
    ) -> None:
        """Take a file.

        Args:
            path: The ONNX file.
            optimise: Whether ONNX Runtime may rewrite the graph.
            threads: How many run an operator; 0 for one on each core.
            weights: The folder of its data file, if that is another folder.
            provider: What runs it.
            spinning: Whether threads wait for the next run at work; off where sessions take turns.
            label: Appended to the name.
        """
        self._provider: Provider = provider
        self._path = path
        self._weights = weights
        self._optimise = optimise
        self._threads = threads
        self._spinning = spinning
        self._session: onnxruntime.InferenceSession | None = None
        shown = provider.removeprefix("ort-")
        self.name = f"onnxruntime {shown}" + ("" if optimise else ", unoptimised") + label

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The session's inputs; a dimension ONNX leaves unnamed is called ``?``."""
        return tuple(
            TensorSpec(i.name, _DTYPES.get(i.type, i.type), tuple(d or "?" for d in i.shape))
            for i in self._open().get_inputs()
        )

    def __enter__(self) -> OrtRunner:
        """Create the session.

        Raises:
            ExportError: If ONNX Runtime refuses the file.
        """
        self._session = open_session(
            self._path,
            optimise=self._optimise,
            threads=self._threads,
            weights=self._weights,
            provider=self._provider,
            spinning=self._spinning,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the session."""
        self._session = None

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the graph; feeds it does not declare are ignored, floats get the declared width."""
        session = self._open()
        given = {i.name: _as_declared(feeds[i.name], i.type) for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        values: list[np.ndarray[Any, Any]] = session.run(names, given)
        return dict(zip(names, values, strict=True))

    def _open(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise RuntimeError("OrtRunner is used outside its with block")
        return self._session


def open_session(  # noqa: PLR0913  (independent options of a session)
    path: Path,
    *,
    optimise: bool = True,
    threads: int = 0,
    weights: Path | None = None,
    provider: Provider = "cpu",
    spinning: bool = True,
    pooled: bool = False,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session of a file; arguments as for ``OrtRunner``.

    ``pooled`` takes the threads that ``share_threads`` made, in place of its own.

    Raises:
        CapabilityError: If ONNX Runtime is not installed, or lacks the provider.
        ExportError: If it refuses the file.
    """
    ort = _onnxruntime()
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise _lacking(provider, ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = 0 if pooled else threads
    options.use_per_session_threads = not pooled
    options.log_severity_level = 4  # errors are raised; printed as well, they read like bugs
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model: str | bytes = str(path)
    if weights is not None:
        # ONNX Runtime looks elsewhere only for a model that it is given as bytes.
        entry = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(entry, str(weights))
        spinning = False  # such a session runs now and then
        model = path.read_bytes()
    if not spinning:  # threads that spin between runs take time from other sessions
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Fallback would run the graph on the CPU, and say so on standard output at most.
        session = ort.InferenceSession(
            model, options, providers=_ASKED[provider], enable_fallback=False
        )
    except _refusals(ort) as error:
        raise ExportError(f"ONNX Runtime refuses {path.name}: {error}") from error
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise _lacking(provider, session.get_providers())
    return session


def _lacking(provider: Provider, found: Sequence[str]) -> CapabilityError:
    return CapabilityError(
        f"ONNX Runtime would run on {', '.join(found)}, wanted {PROVIDERS[provider]}",
        hint="its CUDA and cuDNN libraries are missing or of another version, or there is no GPU: "
        "pip install 'ensemble-to-engine[gpu]'; toolkit doctor",
    )


def share_threads(count: int) -> None:
    """Make the threads that pooled sessions share; once in a process, before the first of them.

    Sessions with threads of their own take turns badly: those of one spin while another runs.
    ``count`` 0 is one on each core.
    """
    _onnxruntime().set_global_thread_pool_sizes(count or len(os.sched_getaffinity(0)), 1)


def _as_declared(array: Array, declared: str) -> Array:
    floats = ("float64", "float32", "float16")
    wanted = _DTYPES.get(declared)
    return (
        array.astype(wanted, copy=False) if wanted in floats and array.dtype.kind == "f" else array
    )


def _refusals(ort: Any) -> tuple[type[Exception], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf,
            state.NotImplemented, state.NoSuchFile, state.RuntimeException)  # fmt: skip


def providers() -> tuple[str, ...]:
    """The execution providers that ONNX Runtime was built with here.

    Raises:
        CapabilityError: If it is not installed.
    """
    return tuple(_onnxruntime().get_available_providers())


def _onnxruntime() -> Any:
    try:
        import onnxruntime as ort  # noqa: PLC0415  (an optional extra: cpu or gpu)
    except ImportError as error:
        raise CapabilityError(
            "ONNX Runtime is not installed, so the graph cannot be run",
            hint="pip install 'ensemble-to-engine[cpu]'",
        ) from error
    return ort
