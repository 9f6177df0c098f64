"""The calls into TensorRT, one code path for both flavours and both majors.

Both packages offer the same classes; what differs is written down here and nowhere else:

* TensorRT 10 makes strongly typed networks only when asked; TensorRT 11 and RTX always do.
* RTX engines name the GPU architectures they run on; TensorRT's are for the GPU at hand.

Enum members are always named, because their numbers changed between majors. The module comes in
as the argument ``trt``: only the worker process loads it, as the builder may take it down.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

from toolkit.engine.api import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    LaterNetworkDefinitionCreationFlag,
    Module,
)
from toolkit.engine.configuring import configure
from toolkit.engine.diagnosis import parser_message, unranged
from toolkit.engine.messages import Request, Result
from toolkit.engine.plugging import load_plugins
from toolkit.engine.readback import network_facts, tensor_of
from toolkit.engine.timing import attach_cache
from toolkit.errors import CapabilityError, EngineError

__all__ = ["build"]

Write = Callable[[memoryview], None]


def build(trt: Module, request: Request, logger: Any, monitor: Any, write: Write) -> Result:
    """Parse the ONNX file, build the plan and hand its bytes to ``write``.

    Args:
        trt: The module ``tensorrt`` or ``tensorrt_rtx``.
        request: What to build.
        logger: A ``trt.ILogger``; it must remember the last error as ``last_error``.
        monitor: A ``trt.IProgressMonitor``.
        write: Called once with the serialized engine.

    Raises:
        CapabilityError: If this release of TensorRT is not supported.
        EngineError: If the parser or the builder refuses the graph.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, request))
    carried = load_plugins(cast(ModuleType, trt), request["plugin"], request["device"])
    _parse(trt, network, request["model"], logger)
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    configure(trt, config, request)
    if carried:
        config.plugins_to_serialize = carried
    facts = network_facts(trt, network, _add_profiles(builder, config, network, request))
    timed = attach_cache(trt, config, request)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise logger.failure()
    write(memoryview(plan))
    return {
        "event": "result",
        "version": trt.__version__,
        "network": facts,
        "timing_cache": timed.keep(config) if timed else None,
        "carries_plugins": bool(carried),
        "notes": timed.notes if timed else [],
    }


def _network_flags(trt: Module, request: Request) -> int:
    """The creation flags of a strongly typed network.

    Raises:
        CapabilityError: If TensorRT is older than 10.8 or newer than 11.
    """
    if request["flavour"] == "tensorrt-rtx":
        return 0
    found = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
    if not (10, 8) <= found < (12, 0):
        raise CapabilityError(
            f"TensorRT {trt.__version__} is not supported; wanted 10.8 or later, before 12",
            hint="pip install 'tensorrt>=10.8,<12'",
        )
    flags = trt.NetworkDefinitionCreationFlag
    typed = 1 << int(flags.STRONGLY_TYPED) if found[0] == 10 else 0
    if request["plugin"] == "aot" and hasattr(flags, "PREFER_AOT_PYTHON_PLUGINS"):
        later = cast("LaterNetworkDefinitionCreationFlag", flags)
        return typed | 1 << int(later.PREFER_AOT_PYTHON_PLUGINS)
    return typed


def _parse(trt: Module, network: INetworkDefinition, model: str, logger: Any) -> None:
    # From the file, not from bytes, so that the parser finds external data beside it.
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        raise parser_message([parser.get_error(i) for i in range(parser.num_errors)])


def _add_profiles(
    builder: Builder, config: IBuilderConfig, network: INetworkDefinition, request: Request
) -> list[IOptimizationProfile]:
    """Give every input its min, opt and max shape, profile by profile.

    A network without dynamic inputs needs none.
    """
    profiles = []
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise EngineError(
                f"the values of input {tensor.name!r} decide the shape of another tensor, "
                "which an engine cannot be given a range for",
                hint="make it a constant, or take the size from another input's shape",
            )
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    for shapes in request["profiles"] if dynamic else ():
        profile = builder.create_optimization_profile()
        for tensor in dynamic:
            profile.set_shape(tensor.name, *_ranges(tensor, shapes))
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"the builder refused the shape ranges {shapes}")
        profiles.append(profile)
    return profiles


def _ranges(
    tensor: ITensor, shapes: dict[str, tuple[int, int, int]]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:  # min, opt, max
    dims = tensor_of(tensor)["shape"]
    sizes: list[list[int]] = [_span(tensor.name, dim, shapes) for dim in dims]
    least, usual, most = (tuple(size[step] for size in sizes) for step in range(3))
    return least, usual, most


def _span(tensor: str, dim: int | str | None, shapes: dict[str, tuple[int, int, int]]) -> list[int]:
    """Min, opt and max of a size, a name or a sum of names."""
    if isinstance(dim, int):
        return [dim] * 3
    if not dim:
        raise unranged(tensor, None, tuple(shapes))
    names = dim.split(" + ")
    for name in names:
        if name not in shapes:
            raise unranged(tensor, name, tuple(shapes))
    return [sum(shapes[name][step] for name in names) for step in range(3)]
