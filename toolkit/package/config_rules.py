"""Rules for the rest of a configuration: backend, batching, instances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.package.findings import Level

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
_PAIR = 2  # a control's values for false and for true


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
    elif backend not in _BACKENDS and not _brought(backend, model):
        yield "refused", f"no backend {backend!r} comes with a server, nor with the model"


def _brought(backend: str, model: Path) -> bool:
    return any(model.rglob(f"libtriton_{backend}.so"))


def scheduling_rules(config: Any) -> Found:
    """Batches, queues, sequences and instances."""
    if config.max_batch_size < 0:
        yield "refused", f"max_batch_size is {config.max_batch_size}, wanted 0 or more"
    kind = config.WhichOneof("scheduling_choice")
    if kind == "dynamic_batching":
        yield from _dynamic(config.dynamic_batching, config.max_batch_size)
    elif kind == "sequence_batching":
        yield from _sequences(config.sequence_batching)
    for group in config.instance_group:
        name = group.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[group.kind].name
        if group.gpus and name in {"KIND_CPU", "KIND_MODEL"}:
            yield "refused", f"an instance_group of {name} names GPUs {list(group.gpus)}"


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


def _sequences(batching: Any) -> Found:
    for entry in batching.control_input:
        for control in entry.control:
            kind = control.DESCRIPTOR.fields_by_name["kind"].enum_type
            name = kind.values_by_number[control.kind].name
            pairs = (
                control.int32_false_true, control.fp32_false_true, control.bool_false_true
            )  # fmt: skip
            given = [list(pair) for pair in pairs if pair]
            if name == "CONTROL_SEQUENCE_CORRID":
                if not control.data_type:
                    yield "refused", f"{name} of {entry.name!r} has no data_type"
            elif [len(pair) for pair in given] != [_PAIR]:
                yield "refused", f"{name} of {entry.name!r} needs its values for false and true"
