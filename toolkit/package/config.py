"""``config.pbtxt`` of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.package.artefact import Artefact
from toolkit.package.interface import Interface, ServedTensor
from toolkit.package.layout import LABELS
from toolkit.package.options import PackageOptions
from toolkit.package.schema import new_config
from toolkit.package.states import State
from toolkit.package.warmup import WarmupInput

__all__ = ["Served", "build_config", "differing", "ensemble_config", "plain_config"]

_IDLE = 60_000_000  # microseconds after which the server forgets a sequence

_PLATFORMS = {"tensorrt": "tensorrt_plan"}


@dataclass(frozen=True)
class Served:
    """What a configuration says of a model beside the choices of a user.

    Attributes:
        interface: Its inputs and outputs.
        artefact: What runs.
        warmup: Inputs of a request, in the order of the interface's.
        labelled: Outputs that have labels.
        states: Caches that the server keeps; they are no inputs and outputs for clients.
    """

    interface: Interface
    artefact: Artefact
    warmup: Sequence[WarmupInput] = ()
    labelled: Sequence[str] = ()
    states: Sequence[State] = ()
    rows: Sequence[int] = field(default=(), kw_only=True)  # of warm-up requests


def build_config(name: str, served: Served, options: PackageOptions) -> Any:
    """The message for a graph or a plan."""
    artefact, interface = served.artefact, served.interface
    config = plain_config(name, interface, options)
    if artefact.backend in _PLATFORMS:
        config.platform = _PLATFORMS[artefact.backend]
    else:
        config.backend = artefact.backend
    config.default_model_filename = artefact.filename
    for capability, file in artefact.by_capability.items():
        config.cc_model_filenames.add(key=capability, value=file)
    for tensor in config.output:
        if tensor.name in served.labelled:
            tensor.label_filename = LABELS
    kind = "gpu" if artefact.backend == "tensorrt" else options.device
    group = config.instance_group.add(count=options.instances, kind=f"KIND_{kind.upper()}")
    if artefact.profiles > 1:
        group.profile.extend(map(str, range(artefact.profiles)))
    if served.states:
        _keep_states(config, served.states, options)
        return config
    if interface.max_batch_size:
        _batching(config.dynamic_batching, options)
    # A warm-up of no rows is not run, so a request without a batch counts as one.
    for size in served.rows or dict.fromkeys((1, interface.max_batch_size or 1)):
        request = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        for each in served.warmup:
            value = request.inputs.add(key=each.name).value
            value.data_type = each.dtype
            value.dims.extend(each.dims)
            value.input_data_file = each.file
    return config


def plain_config(name: str, interface: Interface, options: PackageOptions) -> Any:
    """Name, batch, inputs, outputs and which versions are served."""
    config = new_config()
    config.name = name
    config.max_batch_size = interface.max_batch_size
    for tensor in interface.inputs:
        _fill(config.input.add(), tensor)
    for tensor in interface.outputs:
        _fill(config.output.add(), tensor)
    if options.versions:
        config.version_policy.latest.num_versions = options.versions
    else:
        config.version_policy.all.SetInParent()
    return config


def ensemble_config(
    name: str,
    interface: Interface,
    steps: Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]],
    options: PackageOptions,
) -> Any:
    """One of Triton's own ensembles.

    Args:
        name: What the server calls it.
        interface: Its inputs and outputs, as clients see them: nothing is reshaped.
        steps: A model, and its inputs and outputs by name with the tensors of the ensemble.
        options: Which versions are served.
    """
    config = plain_config(name, interface, options)
    config.platform = "ensemble"
    for tensor in (*config.input, *config.output):
        tensor.ClearField("reshape")
    for model, inputs, outputs in steps:
        step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
        for key, value in inputs.items():
            step.input_map.add(key=key, value=value)
        for key, value in outputs.items():
            step.output_map.add(key=key, value=value)
    return config


def _fill(field_: Any, tensor: ServedTensor) -> None:
    field_.name = tensor.name
    field_.data_type = tensor.dtype
    field_.dims.extend(tensor.dims)
    if tensor.scalar:
        field_.reshape.SetInParent()


def _batching(batching: Any, options: PackageOptions) -> None:
    batching.preferred_batch_size.extend(options.preferred)
    batching.max_queue_delay_microseconds = options.queue_delay
    policy = batching.default_queue_policy
    policy.timeout_action = "REJECT"
    policy.default_timeout_microseconds = options.queue_timeout
    policy.allow_timeout_override = True
    policy.max_queue_size = options.queue_size


def _keep_states(config: Any, states: Sequence[State], options: PackageOptions) -> None:
    """Sequences of requests whose caches stay on the server.

    A warm-up request begins no sequence and would lack the caches, so there is none.
    """
    hidden = {name for state in states for name in (state.input.name, state.output)}
    for tensors in (config.input, config.output):
        kept = [tensor for tensor in tensors if tensor.name not in hidden]
        del tensors[:]
        tensors.extend(kept)
    batching = config.sequence_batching
    batching.max_sequence_idle_microseconds = _IDLE
    batching.oldest.max_candidate_sequences = options.sequences
    batching.oldest.max_queue_delay_microseconds = options.queue_delay
    batching.oldest.preferred_batch_size.extend(options.preferred)
    for state in states:
        kept = batching.state.add(
            input_name=state.input.name, output_name=state.output, data_type=state.input.dtype
        )
        kept.dims.extend(state.input.dims)
        first = kept.initial_state.add(
            name=state.input.name, data_type=state.input.dtype, zero_data=True
        )
        first.dims.extend(state.first)


def differing(old: Any, new: Any) -> list[str]:
    """What a client, or a version's files, would notice between two configurations."""
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
    return found + _differing_inside(old, new)


def _differing_inside(old: Any, new: Any) -> list[str]:
    def runs(config: Any) -> str:
        return str(config.backend or config.platform)

    found = []
    if runs(old) != runs(new):
        found.append(f"it is run by {runs(old)}, would be by {runs(new)}")
    if list(old.cc_model_filenames) != list(new.cc_model_filenames):
        found.append("its plans would be for other GPUs")
    if list(old.sequence_batching.state) != list(new.sequence_batching.state):
        found.append("the caches that the server keeps would be others")
    if list(old.ensemble_scheduling.step) != list(new.ensemble_scheduling.step):
        found.append("its steps would be others")
    return found
