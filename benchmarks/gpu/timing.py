"""Time on a GPU, by CUDA events, with inputs that do not sit in its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

__all__ = ["copies", "copy_bandwidth", "graphed", "interleaved"]

_CALLS = 20  # between two events, whose own resolution is half a microsecond


def interleaved(
    calls: Mapping[str, Callable[[int], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of one call, per round, the calls taking turns.

    A call is given the number of the copy of its inputs to work on; enough copies, and none is
    still in the cache when its turn comes again.
    """
    for call in calls.values():
        for place in range(3):
            call(place)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for place in range(_CALLS):
                call(turn * _CALLS + place)
            end.record()
            end.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1000 / _CALLS)
    return seconds


def copies(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """As many copies as fill the cache four times over."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    count = max(2, -(-4 * cache // max(tensor.nbytes, 1)))
    return [tensor.clone() for _ in range(min(count, 64))]


def copy_bandwidth(rounds: int) -> list[float]:
    """Bytes read and written per second by copying 1 GiB on the device."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = interleaved({"copy": lambda _: target.copy_(source)}, rounds)
    return [2 * source.nbytes / seconds for seconds in found["copy"]]


def graphed(call: Callable[[], object]) -> Callable[[int], object]:
    """A call as a CUDA graph, which is replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return lambda _: graph.replay()
