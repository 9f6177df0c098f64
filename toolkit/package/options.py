"""What may be chosen about a packaged model; everything else is read off the bundle."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    name: str | None = None
    device: Literal["auto", "cpu", "gpu"] = "auto"
    instances: int = 1
    queue_delay: int = 100
    queue_size: int = 1024
    queue_timeout: int = 0
