"""Rules for sequences: controls, and caches that the server keeps between requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.package.findings import Level

if TYPE_CHECKING:
    from graphs import Description

__all__ = ["kept_inputs", "sequence_rules", "state_graph_rules"]

Found = Iterator[tuple[Level, str]]

_INITIAL = "initial_state"  # the folder Triton looks for files in
_PAIR = 2  # a control's values for false and for true
_CORRELATION_TYPES = {"TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"}


def sequence_rules(config: Any, model: Path) -> Found:
    """What a server asks of ``sequence_batching``."""
    batching = config.sequence_batching
    if config.response_cache.enable:
        yield "refused", "a model of sequences cannot have a response_cache"
    for entry in batching.control_input:
        for control in entry.control:
            yield from _control(entry.name, control)
    for size in batching.oldest.preferred_batch_size:
        if not 0 < size <= max(config.max_batch_size, 0):
            most = config.max_batch_size
            yield "refused", f"preferred_batch_size {size} is not within 1 and {most}, the most"
    share = batching.direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        yield "refused", f"minimum_slot_utilization is {share}, wanted 0 to 1"
    begun = Counter(state.input_name for state in batching.state if state.initial_state)
    for name, count in begun.items():
        if count > 1:
            yield "refused", f"state {name!r} stands there {count} times"
    for state in batching.state:
        yield from _state(state, model)


def _control(tensor: str, control: Any) -> Found:
    kind = control.DESCRIPTOR.fields_by_name["kind"].enum_type
    name = kind.values_by_number[control.kind].name
    pairs = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
    given = [list(pair) for pair in pairs if pair]
    if name == "CONTROL_SEQUENCE_CORRID":
        types = control.DESCRIPTOR.fields_by_name["data_type"].enum_type
        dtype = types.values_by_number[control.data_type].name
        if dtype not in _CORRELATION_TYPES:
            yield "refused", f"{name} of {tensor!r} has data_type {dtype}"
    elif [len(pair) for pair in given] != [_PAIR]:
        yield "refused", f"{name} of {tensor!r} needs its values for false and true"


def _state(state: Any, model: Path) -> Found:
    what = f"state {state.input_name!r}"
    if len(state.initial_state) > 1:
        yield "refused", f"{what} has {len(state.initial_state)} initial states, wanted one"
        return
    for first in state.initial_state:
        yield from _initial(what, state, first, model)


def _initial(what: str, state: Any, first: Any, model: Path) -> Found:
    has, wanted = list(first.dims), list(state.dims)
    if first.data_type != state.data_type:
        yield "refused", f"{what} begins with another data_type"
    if not first.name:
        yield "refused", f"the initial state of {what} has no name"
    if len(has) != len(wanted):
        yield "refused", f"{what} has {len(wanted)} dims and begins with {len(has)}"
    elif -1 in has:
        yield "refused", f"{what} begins with dims {has}, wanted sizes"
    elif any(w not in {-1, h} for h, w in zip(has, wanted, strict=True)):
        yield "refused", f"{what} has dims {wanted} and begins with {has}"
    elif any(w == -1 and h != 1 for h, w in zip(has, wanted, strict=True)):
        yield (
            "wrong",
            f"{what} begins with {has}, but Triton gives every open size as 1 at first",
        )
    source = first.WhichOneof("state_data")
    if source is None:
        yield "refused", f"{what}: neither zero_data nor data_file is set"
    elif source == "data_file" and not (model / _INITIAL / first.data_file).is_file():
        yield "refused", f"{what}: there is no file {_INITIAL}/{first.data_file}"


def kept_inputs(config: Any) -> list[str]:
    """Inputs of a graph that no client gives: controls and states."""
    batching = config.sequence_batching
    controls = [entry.name for entry in batching.control_input if entry.control]
    return [*controls, *(state.input_name for state in batching.state)]


def state_graph_rules(config: Any, graph: Description, where: str) -> Found:
    """That the graph has what is kept for it."""
    inputs, outputs = ({t.name for t in each} for each in (graph.inputs, graph.outputs))
    batching = config.sequence_batching
    for entry in batching.control_input:
        if entry.control and entry.name not in inputs:
            yield "refused", f"{where} has no input {entry.name!r} for the control"
    for state in batching.state:
        # A server counts inputs when it loads, and finds out about names when it runs.
        if state.input_name not in inputs:
            yield "wrong", f"{where} has no input {state.input_name!r} for the state"
        if state.output_name not in outputs:
            yield "wrong", f"{where} has no output {state.output_name!r} for the state"
