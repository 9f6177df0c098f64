"""Sends requests to a Triton server and says how long each took; runs alone.

This file is started as a program, by an interpreter that may know nothing of this project: gRPC
wants tritonclient, whose protobuf is older than the project's. HTTP wants nothing but Python.
Usage: ``python client_process.py REQUEST.json``. It writes one line of JSON for every window, until
it is ended.
"""

from __future__ import annotations

import http.client
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

_TIMEOUT = 60.0


def _http_sender(request: dict[str, Any], parts: list[bytes]) -> Callable[[], None]:
    """One connection and one body, in KServe's protocol with Triton's binary tensors."""
    inputs = [
        {
            "name": tensor["name"],
            "shape": tensor["shape"],
            "datatype": tensor["datatype"],
            "parameters": {"binary_data_size": len(part)},
        }
        for tensor, part in zip(request["inputs"], parts, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join([head, *parts])
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    version = f"/versions/{request['version']}" if request["version"] else ""
    path = f"/v2/models/{request['model']}{version}/infer"
    connection = http.client.HTTPConnection(request["address"], timeout=_TIMEOUT)

    def send() -> None:
        try:
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise
        if reply.status != http.client.OK:
            raise RuntimeError(f"HTTP {reply.status}: {content[:300].decode(errors='replace')}")

    return send


def _grpc_sender(request: dict[str, Any], parts: list[bytes]) -> Callable[[], None]:
    import numpy as np  # noqa: PLC0415  (HTTP does without both)
    from tritonclient import grpc, utils  # noqa: PLC0415

    client = grpc.InferenceServerClient(request["address"])
    inputs = []
    for tensor, part in zip(request["inputs"], parts, strict=True):
        one = grpc.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        dtype = utils.triton_to_np_dtype(tensor["datatype"])
        one.set_data_from_numpy(np.frombuffer(part, dtype).reshape(tensor["shape"]))
        inputs.append(one)

    def send() -> None:
        client.infer(
            request["model"], inputs, model_version=request["version"], client_timeout=_TIMEOUT
        )

    return send


def _work(send: Callable[[], None], done: queue.SimpleQueue[tuple[float, str]]) -> None:
    clock = time.perf_counter
    while True:
        start = clock()
        error = ""
        try:
            send()
        except Exception as found:  # noqa: BLE001  (whatever a client raises is an answer lost)
            error = " ".join(str(found).split()) or type(found).__name__
            time.sleep(0.01)  # a server that is gone is not asked a million times
        done.put((clock() - start, error))


def main(path: str) -> None:
    """Send until the process is ended."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    parts = [Path(tensor["file"]).read_bytes() for tensor in request["inputs"]]
    make = _grpc_sender if request["protocol"] == "grpc" else _http_sender
    senders = [make(request, parts) for _ in range(request["concurrency"])]
    done: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
    for send in senders:
        threading.Thread(target=_work, args=(send, done), daemon=True).start()
    begun = time.perf_counter()
    while True:
        time.sleep(request["window"])
        now = time.perf_counter()
        taken = [done.get() for _ in range(done.qsize())]
        errors = [error for _, error in taken if error]
        window = {
            "seconds": [seconds for seconds, error in taken if not error],
            "elapsed": now - begun,
            "errors": len(errors),
            "error": errors[0] if errors else "",
        }
        begun = now
        sys.stdout.write(json.dumps(window) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
