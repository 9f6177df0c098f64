"""What benchmarks with a real Triton server share: the server of the tests, and requests to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from tests.triton.server import PYTHON, Server, build_native, make_backends, serving

__all__ = ["Load", "Requests", "command", "expected_of", "load", "on_server"]

_LOAD = Path(__file__).parent / "triton_load.py"


@dataclass(frozen=True)
class Requests:
    """Files of requests and of their right answers; the first axis of every array counts them."""

    inputs: Path
    expected: Path

    @classmethod
    def write(
        cls,
        folder: Path,
        name: str,
        feeds: Sequence[Mapping[str, np.ndarray]],
        answers: Sequence[Mapping[str, np.ndarray]],
    ) -> Requests:
        """Put both beside each other."""
        paths = folder / f"{name}_inputs.npz", folder / f"{name}_expected.npz"
        for path, arrays in zip(paths, (feeds, answers), strict=True):
            np.savez(path, **{key: np.stack([one[key] for one in arrays]) for key in arrays[0]})
        return cls(*paths)

    def shifted(self, folder: Path) -> Requests:
        """The same requests with the answers to others, to see that a check sees it."""
        with np.load(self.expected) as arrays:
            moved = {name: np.roll(array, 1, axis=0) for name, array in arrays.items()}
        path = folder / f"shifted_{self.expected.name}"
        np.savez(path, **moved)
        return Requests(self.inputs, path)


@dataclass(frozen=True)
class Load:
    """What came back: answers within the time, their latencies in seconds, and what went wrong.

    ``unequal`` answers are right and differ in rounding, because other rows shared their run.
    """

    answers: int
    seconds: float
    p50: float
    p99: float
    longest: float
    wrong: int
    unequal: int
    lost: int
    errors: Sequence[str]

    @property
    def throughput(self) -> float:
        """Answers in a second."""
        return self.answers / self.seconds


def expected_of(
    graph: Path, feeds: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """What ONNX Runtime says in this process."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    found = (session.run(list(outputs), dict(one)) for one in feeds)
    return [dict(zip(outputs, arrays, strict=True)) for arrays in found]


@contextmanager
def on_server(repository: Path, folder: Path, *flags: str) -> Iterator[Server]:
    """The repository on a server whose onnxruntime backend is the tests' library.

    Raises:
        SystemExit: If there is no server, or no compiler for the backend.
    """
    if not PYTHON.exists():
        raise SystemExit("error: no Triton server here\n\nhint: make test-triton installs one")
    library, missing = build_native(folder / "library")
    if library is None:
        raise SystemExit(f"error: the backend cannot be built: {missing}")
    backends = make_backends(folder / "backends", library)
    # One pool of threads for all models: what is fairest to many models on few cores.
    os.environ["STAND_IN_THREADS"] = str(os.cpu_count() or 1)
    with serving([repository / "serve.sh", *flags], backends, folder / "empty") as server:
        yield server


def load(
    server: Server, model: str, requests: Requests, *, concurrency: int, seconds: float
) -> Load:
    """Keep ``concurrency`` requests on their way for a while, from a process of their own."""
    words = command(server, model, requests, concurrency, seconds)
    done = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE)
    return Load(**json.loads(done.stdout))


def command(
    server: Server, model: str, requests: Requests, concurrency: int, seconds: float
) -> list[str]:
    """The process that asks."""
    words = [
        PYTHON, _LOAD, model, "--url", f"localhost:{server.grpc}", "--inputs", requests.inputs,
        "--expected", requests.expected, "--concurrency", concurrency, "--seconds", seconds,
    ]  # fmt: skip
    return [str(word) for word in words]
