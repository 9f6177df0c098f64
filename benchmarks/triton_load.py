"""A closed loop of requests to a Triton server, each answer held against the right one.

It runs alone, in the environment that has tritonclient: python benchmarks/triton_load.py --help.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

__all__ = ["Case", "Client", "main", "read_cases"]


@dataclass(frozen=True)
class Case:
    """One request and the answer that is right."""

    inputs: list
    expected: dict[str, np.ndarray]


def read_cases(inputs: Path, expected: Path) -> list[Case]:
    """Arrays whose first axis counts the cases."""
    with np.load(inputs) as given, np.load(expected) as wanted:
        feeds, answers = dict(given), dict(wanted)
    count = len(next(iter(feeds.values())))
    cases = []
    for index in range(count):
        tensors = []
        for name, arrays in feeds.items():
            array = np.ascontiguousarray(arrays[index])
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        cases.append(Case(tensors, {name: arrays[index] for name, arrays in answers.items()}))
    return cases


@dataclass
class Client:
    """One client: requests one after another, each held against its answer."""

    arguments: argparse.Namespace
    cases: list[Case]
    number: int
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0
    unequal: int = 0
    errors: list[str] = field(default_factory=list)

    def run(self, start: float, end: float) -> None:
        """Ask until ``end``; what begins before ``start`` is looked at and not timed."""
        wanted = [triton.InferRequestedOutput(name) for name in self.cases[0].expected]
        with triton.InferenceServerClient(self.arguments.url) as client:
            while (begin := time.perf_counter()) < end:
                case = self.cases[self.number % len(self.cases)]
                self.number += 1
                try:
                    found = client.infer(
                        self.arguments.model, case.inputs, outputs=wanted, client_timeout=30
                    )
                except InferenceServerException as error:
                    self.lost += 1
                    self.errors.append(str(error))
                    continue
                taken = time.perf_counter() - begin
                self._look(case, found)
                if begin >= start:
                    self.seconds.append(taken)

    def _look(self, case: Case, found: triton.InferResult) -> None:
        for name, right in case.expected.items():
            array = found.as_numpy(name)
            if array is None or array.shape != right.shape:
                self.wrong += 1
            elif not np.array_equal(array, right):
                self.unequal += 1
                close = np.allclose(array, right, rtol=self.arguments.tolerance, atol=1e-5)
                self.wrong += not close


def main() -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--url", required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--expected", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    cases = read_cases(arguments.inputs, arguments.expected)
    clients = [Client(arguments, cases, 7 * place) for place in range(arguments.concurrency)]
    start = time.perf_counter() + arguments.warmup
    end = start + arguments.seconds
    threads = [threading.Thread(target=client.run, args=(start, end)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = [one for client in clients for one in client.seconds]
    result = {
        "answers": len(seconds),
        "seconds": arguments.seconds,
        "p50": float(np.percentile(seconds, 50)) if seconds else None,
        "p99": float(np.percentile(seconds, 99)) if seconds else None,
        "longest": max(seconds, default=None),
        "wrong": sum(client.wrong for client in clients),
        "unequal": sum(client.unequal for client in clients),
        "lost": sum(client.lost for client in clients),
        "errors": [error for client in clients for error in client.errors][:3],
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
