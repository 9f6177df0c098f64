"""What may be chosen about a packaged model; everything else is read off the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["PackageOptions"]


@dataclass(frozen=True)
class PackageOptions:
    """How a model is served.

    Attributes:
        name: What the server calls it; None takes the bundle folder's name.
        device: Where instances run; ``auto`` is every GPU the server sees, else the CPU.
        instances: How many run side by side, on each device.
        queue_delay: Microseconds a request may wait for others to share its batch.
        queue_size: Requests that may wait before further ones are refused; 0 is no limit.
        queue_timeout: Microseconds after which a waiting request is refused; 0 is never. A request
            may ask for less.
        preferred: Batch sizes that are run at once when they are reached.
        versions: How many of the newest versions are served side by side; 0 is all.
        artifact: ``onnx``, ``plan`` (the TensorRT engine) or ``both``, the plan as ``NAME_plan``;
            ``auto`` is the plan where a bundle has one that Triton runs, else the graph.
        engines: Bundles of the same graph whose plans were built for other GPUs.
        accelerator: ``tensorrt`` lets ONNX Runtime build engines of the graph on the server.
        cuda_graphs: Whether a plan's launches are captured, for the least and the largest batch.
        state: Who keeps the caches of a decoder between requests: the ``server`` (Triton's
            sequence batcher) or the ``client``; ``auto`` is the server where its rules allow.
        sequences: How many sequences the server keeps caches of at once.
        labels: A file with one label a line, in the order of the output's last axis; None takes
            the bundle's own.
    """

    name: str | None = None
    device: Literal["auto", "cpu", "gpu"] = "auto"
    instances: int = 1
    queue_delay: int = 100
    queue_size: int = 1024
    queue_timeout: int = 0
    preferred: tuple[int, ...] = ()
    versions: int = 1
    artifact: Literal["auto", "onnx", "plan", "both"] = "auto"
    engines: tuple[Path, ...] = ()
    accelerator: Literal["none", "tensorrt"] = "none"
    cuda_graphs: bool = False
    state: Literal["auto", "server", "client"] = "auto"
    sequences: int = 64
    labels: Path | None = None
