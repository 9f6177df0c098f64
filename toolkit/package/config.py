"""``config.pbtxt`` of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.package.interface import Interface, ServedTensor
from toolkit.package.layout import GRAPH
from toolkit.package.options import PackageOptions
from toolkit.package.schema import new_config
from toolkit.package.warmup import WarmupInput

__all__ = ["build_config", "differing"]


def build_config(
    name: str, interface: Interface, warmup: Sequence[WarmupInput], options: PackageOptions
) -> Any:
    """The message for a graph run by the onnxruntime backend.

    Only the newest version is served; older ones stay on disk to go back to.
    """
    config = new_config()
    config.name = name
    config.backend = "onnxruntime"
    config.default_model_filename = GRAPH
    config.max_batch_size = interface.max_batch_size
    for tensor in interface.inputs:
        _fill(config.input.add(), tensor)
    for tensor in interface.outputs:
        _fill(config.output.add(), tensor)
    config.version_policy.latest.num_versions = 1
    kind = f"KIND_{options.device.upper()}"
    config.instance_group.add(count=options.instances, kind=kind)
    if interface.max_batch_size:
        _batching(config.dynamic_batching, options)
    # A warm-up of no rows is not run, so a request without a batch counts as one.
    for size in dict.fromkeys((1, interface.max_batch_size or 1)):
        request = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        for each in warmup:
            value = request.inputs.add(key=each.name).value
            value.data_type = each.dtype
            value.dims.extend(each.dims)
            value.input_data_file = each.file
    return config


def _fill(field: Any, tensor: ServedTensor) -> None:
    field.name = tensor.name
    field.data_type = tensor.dtype
    field.dims.extend(tensor.dims)
    if tensor.scalar:
        field.reshape.SetInParent()


def _batching(batching: Any, options: PackageOptions) -> None:
    batching.max_queue_delay_microseconds = options.queue_delay
    policy = batching.default_queue_policy
    policy.timeout_action = "REJECT"
    policy.default_timeout_microseconds = options.queue_timeout
    policy.allow_timeout_override = True
    policy.max_queue_size = options.queue_size


def differing(old: Any, new: Any) -> list[str]:
    """What a client would notice between two configurations, one phrase each."""
    found = []
    if old.max_batch_size != new.max_batch_size:
        found.append(f"max_batch_size is {old.max_batch_size}, would be {new.max_batch_size}")
    for kind in ("input", "output"):
        before, after = (
            {tensor.name: tensor for tensor in getattr(config, kind)} for config in (old, new)
        )
        found += [f"{kind} {name!r} would go" for name in before if name not in after]
        found += [f"{kind} {name!r} would be new" for name in after if name not in before]
        found += [
            f"{kind} {name!r} would be of another type or shape"
            for name in before
            if name in after and before[name] != after[name]
        ]
    return found
