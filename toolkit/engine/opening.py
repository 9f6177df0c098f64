"""Open a plan, where there is a GPU, and read what the engine says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.engine.api import ICudaEngine, Module
from toolkit.engine.choices import TITLES, Flavour
from toolkit.engine.messages import Opened, ReadRequest
from toolkit.engine.readback import dtype_of
from toolkit.errors import EngineError

__all__ = ["open_engine"]


def open_engine(trt: Module, request: ReadRequest, logger: Any) -> Opened:
    """Deserialize and read; runs in the worker, because a plan of another make can crash it.

    Raises:
        EngineError: If TensorRT does not take the plan.
    """
    runtime = trt.Runtime(logger)
    if request["host_code"]:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(Path(request["plan"]).read_bytes())
    if engine is None:
        flavour: Flavour = request["flavour"]
        said = logger.failure().message.partition(": ")[2]
        raise EngineError(
            f"{TITLES[flavour]} {trt.__version__} does not open the plan: {said}",
            hint="build it again on this machine",
        )
    return _read(trt, engine)


def _read(trt: Module, engine: ICudaEngine) -> Opened:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    profiles = range(engine.num_optimization_profiles)
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    inspector = engine.create_engine_inspector()
    return {
        "event": "opened",
        "version": trt.__version__,
        "inputs": [_tensor(engine, name) for name in inputs],
        "outputs": [_tensor(engine, name) for name in names if name not in inputs],
        "ranges": [
            {name: _sizes(engine.get_tensor_profile_shape(name, index)) for name in inputs}
            for index in profiles
        ],
        "memory": [engine.get_device_memory_size_for_profile_v2(index) for index in profiles],
        "streamable": engine.streamable_weights_size,
        "refittable": engine.refittable,
        "aux_streams": engine.num_aux_streams,
        "layers": engine.num_layers,
        "information": inspector.get_engine_information(trt.LayerInformationFormat.JSON),
    }


def _tensor(engine: ICudaEngine, name: str) -> Any:
    shape = [size if size >= 0 else None for size in tuple(engine.get_tensor_shape(name))]
    return {"name": name, "dtype": dtype_of(engine.get_tensor_dtype(name).name), "shape": shape}


def _sizes(shapes: Any) -> list[list[int]]:
    return [[int(size) for size in shape] for shape in shapes]
