"""Rules for the rest of a configuration: backend, batching, instances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.package.findings import Level
from toolkit.package.state_rules import sequence_rules

__all__ = ["backend_of", "backend_rules", "scheduling_rules"]

Found = Iterator[tuple[Level, str]]

_PLATFORMS: Mapping[str, str] = {
    "ensemble": "ensemble", "onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow", "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
}  # fmt: skip
# The files by which a server knows the backend where none is named.
_FILES: Mapping[str, str] = {
    "model.onnx": "onnxruntime", "model.plan": "tensorrt", "model.pt": "pytorch",
    "model.py": "python", "model.xml": "openvino", "model.graphdef": "tensorflow",
    "model.savedmodel": "tensorflow", "model.dali": "dali",
}  # fmt: skip
_BACKENDS = {
    *_PLATFORMS.values(), *_FILES.values(), "dali", "fil", "identity", "python", "repeat", "square",
    "tensorrtllm", "vllm",
}  # fmt: skip
_PAIRED = set(_PLATFORMS.values())
_ACCELERATORS = {"gpu": {"tensorrt", "cuda"}, "cpu": {"openvino"}}


def backend_of(config: Any, model: Path, versions: Iterable[int]) -> str:
    """The backend that would run it; empty where a server knows none."""
    if config.backend:
        return str(config.backend)
    if config.platform:
        return _PLATFORMS.get(config.platform, "")
    if config.default_model_filename in _FILES:
        return _FILES[config.default_model_filename]
    folders = [model / str(version) for version in versions]
    return next(
        (name for file, name in _FILES.items() if any((f / file).exists() for f in folders)), ""
    )


def backend_rules(config: Any, backend: str, model: Path) -> Found:
    """That there is one, and that it is known."""
    if not backend and config.platform:
        known = ", ".join(sorted(_PLATFORMS))
        yield "refused", f"platform {config.platform!r} is unknown, wanted one of {known}"
    elif not backend:
        yield "refused", "neither backend nor platform is named, and no file says which"
    elif config.platform and config.backend in _PAIRED and not _pair(config):
        yield "refused", f"backend {config.backend!r} does not run platform {config.platform!r}"
    elif backend not in _BACKENDS and not _brought(backend, model):
        yield "refused", f"no backend {backend!r} comes with a server, nor with the model"


def _pair(config: Any) -> bool:
    return config.platform != "ensemble" and bool(_PLATFORMS.get(config.platform) == config.backend)


def _brought(backend: str, model: Path) -> bool:
    return any(model.rglob(f"libtriton_{backend}.so"))


def scheduling_rules(config: Any, model: Path) -> Found:
    """Batches, queues, sequences, instances and accelerators."""
    if config.max_batch_size < 0:
        yield "refused", f"max_batch_size is {config.max_batch_size}, wanted 0 or more"
    kind = config.WhichOneof("scheduling_choice")
    if kind == "dynamic_batching":
        yield from _dynamic(config.dynamic_batching, config.max_batch_size)
    elif kind == "sequence_batching":
        yield from sequence_rules(config, model)
    for group in config.instance_group:
        yield from _instances(group, config)
    yield from _accelerators(config.optimization.execution_accelerators)


def _instances(group: Any, config: Any) -> Found:
    name = group.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[group.kind].name
    if group.gpus and name in {"KIND_CPU", "KIND_MODEL"}:
        yield "refused", f"an instance_group of {name} names GPUs {list(group.gpus)}"
    if group.profile and config.platform != "tensorrt_plan" and config.backend != "tensorrt":
        yield "refused", "an instance_group names profiles, which only plans of TensorRT have"
    for profile in group.profile:
        if not profile.isdecimal():
            yield "refused", f"profile {profile!r} is no number, wanted 0 or more"


def _accelerators(accelerators: Any) -> Found:
    for kind, known in _ACCELERATORS.items():
        for each in getattr(accelerators, f"{kind}_execution_accelerator"):
            said = f"{kind} accelerator {each.name!r}"
            if each.name not in known:
                yield "refused", f"{said} is unknown, wanted {' or '.join(sorted(known))}"
            modes = [p.value for p in each.parameters if p.key == "precision_mode"]
            if each.name == "tensorrt" and not set(modes) <= {"FP32", "FP16", "INT8"}:
                yield (
                    "refused",
                    f"{said} has precision_mode {modes[0]!r}, wanted FP32, FP16 or INT8",
                )


def _dynamic(batching: Any, largest: int) -> Found:
    if largest == 0:
        yield "wrong", "dynamic_batching does nothing where max_batch_size is 0"
    for size in batching.preferred_batch_size:
        if not 0 < size <= max(largest, 0):
            yield (
                "refused",
                f"preferred_batch_size {size} is not within 1 and max_batch_size {largest}",
            )
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 0 < default <= levels:
        yield "refused", f"default_priority_level is {default}, wanted 1 to {levels}"
    for policy in batching.priority_queue_policy:
        if not 0 < policy.key <= levels:
            yield "refused", f"there is a queue policy for priority {policy.key} of {levels}"
