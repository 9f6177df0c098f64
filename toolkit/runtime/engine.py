"""Runs a plan in TensorRT or TensorRT-RTX, on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np

from toolkit.artifacts import TensorSpec
from toolkit.errors import CapabilityError, EngineError
from toolkit.runtime.base import Feeds, Outputs
from toolkit.runtime.device import Buffer, CudaDevice, Device
from toolkit.runtime.engine_parts import (
    Shapes,
    as_declared,
    dtype_name,
    dtype_of,
    fitting_profile,
    make_allocator,
    make_logger,
    names_of,
    symbolic,
)
from toolkit.runtime.tensorrt_api import ICudaEngine, IExecutionContext, RuntimeModule

__all__ = ["EngineFlavour", "TrtRunner", "import_library"]

EngineFlavour = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: Mapping[EngineFlavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_MOST_GRAPHS = 8  # each has a context with memory of its own
_REBUILD = (
    "a plan runs with the release and on the architecture it was built for; "
    "toolkit build BUNDLE builds it again here"
)


def import_library(flavour: EngineFlavour) -> RuntimeModule:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        CapabilityError: If it is not installed or does not load.
    """
    try:
        return cast("RuntimeModule", importlib.import_module(_MODULES[flavour]))
    except (ImportError, OSError) as error:
        extra = "gpu" if flavour == "tensorrt" else "rtx"
        raise CapabilityError(
            f"the Python package {_MODULES[flavour]} does not load: {error}",
            hint=f"pip install 'ensemble-to-engine[{extra}]'",
        ) from error


@dataclass(frozen=True)
class _Loaded:
    """An engine and what has to live as long as it does."""

    trt: RuntimeModule
    logger: Any
    runtime: Any
    engine: ICudaEngine


@dataclass
class _Run:
    """A context with what is bound to it.

    Attributes:
        context: The context, its shapes set.
        inputs: Their memory.
        outputs: Their memory, and their shape.
        late: Allocators of the outputs whose shape follows from values.
        replay: Runs it as a CUDA graph; None where it is started each time.
    """

    context: IExecutionContext
    inputs: dict[str, Buffer] = field(default_factory=dict)
    outputs: dict[str, tuple[Buffer, tuple[int, ...]]] = field(default_factory=dict)
    late: dict[str, Any] = field(default_factory=dict)
    replay: Callable[[], None] | None = None


class TrtRunner:
    """An engine with a context for each of its profiles.

    A call takes the profile that fits its shapes most tightly. Outputs whose shape follows from
    values get memory when the engine asks for it. Runners of one engine for several threads come
    from ``share``: each has contexts and a stream of its own.

    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        captured: Of CUDA graphs, what was captured and what could not be; empty without them.
    """

    def __init__(  # noqa: PLR0913  (independent options of a runner)
        self,
        path: Path,
        flavour: EngineFlavour = "tensorrt",
        *,
        cuda_graph: bool = False,
        label: str = "",
        load: Callable[[EngineFlavour], RuntimeModule] = import_library,
        device: Callable[[], Device] = CudaDevice,
    ) -> None:
        """Take a plan.

        Args:
            path: The plan.
            flavour: The library that built it.
            cuda_graph: Whether a shape that comes again is run as a CUDA graph, where it can be.
            label: Appended to the name.
            load: Gives the library.
            device: Gives memory and a stream.
        """
        self.name = flavour + label
        self.captured = ""
        self._path, self._flavour, self._label = path, flavour, label
        self._load, self._make_device = load, device
        self._graphs = cuda_graph
        self._loaded: _Loaded | None = None
        self._shared = False
        self._device: Device | None = None
        self._contexts: dict[int, IExecutionContext] = {}
        self._recorded: dict[tuple[Any, ...], _Run] = {}

    def share(self) -> TrtRunner:
        """Another runner of the same engine, for another thread; to be entered while this is.

        Raises:
            RuntimeError: If this one is not entered.
        """
        self._open()
        other = TrtRunner(
            self._path, self._flavour, cuda_graph=self._graphs, label=self._label,
            load=self._load, device=self._make_device,
        )  # fmt: skip
        other._loaded, other._shared = self._loaded, True
        return other

    def __enter__(self) -> TrtRunner:
        """Read the plan.

        Raises:
            CapabilityError: If the library does not load.
            EngineError: If it refuses the plan.
        """
        self._device = self._make_device()
        if self._loaded is None:
            trt = self._load(self._flavour)
            logger = make_logger(trt)
            runtime = trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine(self._path.read_bytes())
            if engine is None:
                raise EngineError(
                    f"{self.name} {trt.__version__} refuses {self._path.name}: "
                    f"{logger.last_error or 'without a reason'}",
                    hint=_REBUILD,
                )
            self._loaded = _Loaded(trt, logger, runtime, engine)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the contexts, and the engine with the runner that read it."""
        self._recorded.clear()
        self._contexts.clear()
        self._loaded = None
        self._device = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs; a dynamic dimension is called ``NAME_AXIS``."""
        trt, engine = self._open()
        return tuple(
            TensorSpec(name, dtype_name(engine, name), symbolic(name, shape))
            for name in names_of(engine, trt.TensorIOMode.INPUT)
            for shape in [tuple(engine.get_tensor_shape(name))]
        )

    def __call__(self, feeds: Feeds) -> Outputs:
        """Run the engine; feeds it does not declare are ignored, floats get the declared width.

        Raises:
            EngineError: If no profile has these shapes, or the engine fails.
        """
        trt, engine = self._open()
        given = {
            name: as_declared(feeds[name], engine.get_tensor_dtype(name))
            for name in names_of(engine, trt.TensorIOMode.INPUT)
        }
        shapes: Shapes = {name: array.shape for name, array in given.items()}
        profile = fitting_profile(engine, shapes)
        run = self._recorded.get(_key(profile, shapes))
        if run is None:
            run = self._bound(profile, shapes)
        for name, array in given.items():
            run.inputs[name].write(array)
        self._start(run)
        if self._graphs and run.replay is None:
            self._capture(profile, shapes, run)
        return self._results(run)

    def _open(self) -> tuple[RuntimeModule, ICudaEngine]:
        if self._loaded is None or (self._device is None and not self._shared):
            raise RuntimeError("TrtRunner is used outside its with block")
        return self._loaded.trt, self._loaded.engine

    def _place(self) -> Device:
        if self._device is None:
            raise RuntimeError("TrtRunner is used outside its with block")
        return self._device

    def _context(self, profile: int, *, own: bool) -> IExecutionContext:
        """The profile's context; a CUDA graph has its own, because it holds on to its state."""
        if profile in self._contexts and not own:
            return self._contexts[profile]
        context = self._open()[1].create_execution_context()
        if context is None:
            raise EngineError(f"{self.name} has no memory for a context of {self._path.name}")
        if profile and not context.set_optimization_profile_async(profile, self._place().stream):
            raise EngineError(f"{self.name} refuses profile {profile} of {self._path.name}")
        if not own:
            self._contexts[profile] = context
        return context

    def _bound(self, profile: int, shapes: Shapes) -> _Run:
        """A context with these shapes, and memory for inputs and outputs."""
        trt, engine = self._open()
        device = self._place()
        run = _Run(self._context(profile, own=self._graphs))
        for name, shape in shapes.items():
            size = prod(shape) * dtype_of(engine, name).itemsize
            run.inputs[name] = device.buffer(size)
            _taken(run.context.set_input_shape(name, shape), f"shape {list(shape)} of {name!r}")
            address = run.inputs[name].address
            _taken(run.context.set_tensor_address(name, address), f"memory for {name!r}")
        lacking = run.context.infer_shapes()
        if lacking:
            raise EngineError(f"{self.name} cannot tell its shapes without {', '.join(lacking)}")
        for name in names_of(engine, trt.TensorIOMode.OUTPUT):
            shape = tuple(run.context.get_tensor_shape(name))
            if -1 in shape:
                run.late[name] = make_allocator(trt, device)
                taken = run.context.set_output_allocator(name, run.late[name])
            else:
                buffer = device.buffer(prod(shape) * dtype_of(engine, name).itemsize)
                run.outputs[name] = buffer, shape
                taken = run.context.set_tensor_address(name, buffer.address)
            _taken(taken, f"memory for {name!r}")
        return run

    def _start(self, run: _Run) -> None:
        if run.replay is not None:
            run.replay()
        elif not run.context.execute_async_v3(self._place().stream):
            last = self._loaded.logger.last_error if self._loaded else ""
            raise EngineError(f"{self.name} failed to run {self._path.name}: {last or 'no reason'}")

    def _capture(self, profile: int, shapes: Shapes, run: _Run) -> None:
        """Keep a run, as a CUDA graph where that can be; the first run has set its state up."""
        device = self._place()
        device.synchronize()
        self.captured = "outputs whose shape follows from values" if run.late else ""
        if not run.late:
            try:
                run.replay = device.capture(lambda: self._start(run))
            except (RuntimeError, EngineError) as error:
                self.captured = str(error).splitlines()[0]
        self.captured = f"not captured: {self.captured}" if self.captured else "captured"
        if run.replay is None:
            self._graphs = False  # what the engine does cannot be captured; do not try each time
            return
        if len(self._recorded) >= _MOST_GRAPHS:
            self._recorded.pop(next(iter(self._recorded)))
        self._recorded[_key(profile, shapes)] = run

    def _results(self, run: _Run) -> Outputs:
        trt, engine = self._open()
        self._place().synchronize()
        for name, allocator in run.late.items():
            run.outputs[name] = allocator.buffer, allocator.shape
        found: Outputs = {}
        for name in names_of(engine, trt.TensorIOMode.OUTPUT):
            buffer, shape = run.outputs[name]
            dtype = dtype_of(engine, name)
            data = buffer.read(prod(shape) * dtype.itemsize)
            found[name] = np.frombuffer(data, dtype).reshape(shape).copy()
        return found


def _key(profile: int, shapes: Shapes) -> tuple[Any, ...]:
    return (profile, *shapes.values())


def _taken(taken: bool, what: str) -> None:
    if not taken:
        raise EngineError(f"the engine refuses the {what}")
