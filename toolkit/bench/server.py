"""Which server, which model on it, and what its requests look like."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.bench.points import Point
from toolkit.bench.sessions import Job
from toolkit.errors import EngineError, ToolkitError

__all__ = [
    "Asked",
    "Target",
    "ask",
    "max_batch_size",
    "require_model",
    "target_of",
    "write_request",
]

_DTYPES: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16",
}  # fmt: skip
_URL = re.compile(r"^(?P<protocol>http|grpc)://(?P<address>[^/\s]+:\d+)/?$")
_SECONDS = 20.0


@dataclass(frozen=True)
class Target:
    """A model on a server; ``version`` is empty for the one that its policy serves."""

    protocol: Literal["http", "grpc"]
    address: str
    model: str
    version: str

    @property
    def title(self) -> str:
        """``digits:2 over http``."""
        return f"{self.model}{':' if self.version else ''}{self.version} over {self.protocol}"


@dataclass(frozen=True)
class Asked:
    """One request, sent again and again.

    Attributes:
        target: Whom.
        job: With what.
        point: Its sizes.
        concurrency: How many at a time.
    """

    target: Target
    job: Job
    point: Point
    concurrency: int


def target_of(url: str, model: str) -> Target:
    """Read the address and ``NAME`` or ``NAME:VERSION``.

    Raises:
        ToolkitError: If one of them is not of its form.
    """
    found = _URL.match(url)
    if found is None:
        raise ToolkitError(
            f"found the server {url!r}, wanted http://localhost:8000 or grpc://localhost:8001",
            hint="a host and a port; Triton's own are 8000 for http and 8001 for grpc",
        )
    name, _, version = model.partition(":")
    if not name or (":" in model and not version.isdecimal()):
        raise ToolkitError(f"found the model {model!r}, wanted NAME or NAME:VERSION")
    protocol: Literal["http", "grpc"] = "http" if found["protocol"] == "http" else "grpc"
    return Target(protocol, found["address"], name, version)


def ask(target: Target, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and content of a request over HTTP.

    Raises:
        EngineError: If nothing answers there.
    """
    request = urllib.request.Request(f"http://{target.address}/{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:  # noqa: S310
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            f"no server answers at {target.address}: {reason}",
            hint="toolkit serve BUNDLE starts one for development",
        ) from error


def require_model(target: Target) -> None:
    """Whether the model is ready; asked over HTTP only, gRPC says so with its first answer.

    Raises:
        EngineError: If not, with the models that are.
    """
    if target.protocol != "http":
        return
    version = f"/versions/{target.version}" if target.version else ""
    status, _ = ask(target, f"v2/models/{target.model}{version}/ready")
    if status == 200:
        return
    _, content = ask(target, "v2/repository/index", b"{}")
    listed = json.loads(content or b"[]")
    ready = [
        f"{each['name']}:{each.get('version', '')}"
        for each in (listed if isinstance(listed, list) else [])
        if each.get("state") == "READY"
    ]
    raise EngineError(
        f"{target.address} has no model {target.title.partition(' ')[0]} that is ready",
        hint="--model is one of " + ", ".join(ready) if ready else "it has no model that is ready",
    )


def max_batch_size(target: Target) -> int:
    """What the server says of the model; 0 is none. Over HTTP only."""
    _, content = ask(target, f"v2/models/{target.model}/config")
    return int(json.loads(content).get("max_batch_size", 0))


def write_request(asked: Asked, window: float, folder: Path) -> Path:
    """Write what ``client_process`` reads: one request, and how to send it."""
    inputs: list[dict[str, Any]] = []
    for number, (name, array) in enumerate(asked.job.feeds.items()):
        file = folder / f"{number}.bin"
        file.write_bytes(np.ascontiguousarray(array).tobytes())
        inputs.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _DTYPES[array.dtype.name],
                "file": str(file),
            }
        )
    request = {
        "protocol": asked.target.protocol,
        "address": asked.target.address,
        "model": asked.target.model,
        "version": asked.target.version,
        "concurrency": asked.concurrency,
        "window": window,
        "inputs": inputs,
    }
    path = folder / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    return path
