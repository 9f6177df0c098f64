"""A minute at the highest sustainable concurrency, with models that come and go meanwhile."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rows import Row
from benchmarks.serving import Load, Requests, command, expected_of, load, on_server
from benchmarks.serving_models import write_bundle
from tests.triton.server import Server
from toolkit.bundle import Manifest
from toolkit.feeds import make_feeds
from toolkit.package import PackageOptions, package_triton

__all__ = ["Soaked", "run", "soak", "sustainable"]

# More clients have to bring this much more, or the server is full.
GAIN = 1.05


@dataclass(frozen=True)
class Soaked:
    """What happened.

    Attributes:
        load: What the clients saw.
        changes: Models that were loaded or unloaded meanwhile.
    """

    load: Load
    changes: int


def run(*, quick: bool) -> list[Row]:
    """Measure, soak for 60 s (8 with ``quick``) and count."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = write_bundle(folder / "work", shared=True, layers=2, width=128)
        repository = folder / "models"
        options = PackageOptions(name="soaked")
        package_triton(bundle, repository, options)
        package_triton(bundle, repository, PackageOptions(name="other"))
        requests = requests_of(bundle, folder)
        flags = ("--model-control-mode=explicit", "--load-model=soaked")
        with on_server(repository, folder / "server", *flags) as server:
            clients, most = sustainable(server, "soaked", requests, 0.6 if quick else 3.0)
            found = soak(
                server, "soaked", requests, concurrency=clients, seconds=8 if quick else 60,
                add_version=lambda: package_triton(bundle, repository, options), other="other",
            )  # fmt: skip
    seen = found.load
    return [
        Row("clients at which throughput stops growing", clients, ""),
        Row("answers a second, before", most, "1/s"),
        Row("answers a second, while models come and go", seen.throughput, "1/s"),
        Row("answers", seen.answers, ""),
        Row("models loaded or unloaded meanwhile", found.changes, "", floor=3),
        Row("wrong answers", seen.wrong, "", bound=0),
        Row("lost answers", seen.lost, "", bound=0),
        Row("p99", seen.p99 * 1e3, "ms"),
        Row("longest", seen.longest * 1e3, "ms"),
    ]


def requests_of(bundle: Path, folder: Path, count: int = 24) -> Requests:
    """Requests of one row and their answers, far apart from each other's."""
    manifest = Manifest.read(bundle / "manifest.json")
    specs = [record.spec() for record in manifest.inputs]
    dims = {name: span[1] for name, span in manifest.shapes.items()} | {"batch": 1}
    rng = np.random.default_rng(0)
    feeds = [make_feeds(specs, dims, rng, "full") for _ in range(count)]
    outputs = [record.name for record in manifest.outputs]
    return Requests.write(folder, "soak", feeds, expected_of(bundle / "model.onnx", feeds, outputs))


def sustainable(
    server: Server, model: str, requests: Requests, seconds: float
) -> tuple[int, float]:
    """The fewest clients that get nearly the most of the server, and what they get."""
    counts = (1, 2, 4, 8, 16, 32)
    found = {
        clients: load(server, model, requests, concurrency=clients, seconds=seconds).throughput
        for clients in counts
    }
    most = max(found.values())
    return next((clients, rate) for clients, rate in found.items() if rate * GAIN >= most)


def soak(  # noqa: PLR0913  (each is a different thing)
    server: Server,
    model: str,
    requests: Requests,
    *,
    concurrency: int,
    seconds: float,
    add_version: Callable[[], object],
    other: str,
) -> Soaked:
    """Load; meanwhile another model comes and goes, and in the middle ``model`` gets a version."""
    process = subprocess.Popen(
        command(server, model, requests, concurrency, seconds), stdout=subprocess.PIPE, text=True
    )
    begin, changes = time.monotonic(), 0
    change(server, other, "load")
    time.sleep(max(0.0, begin + seconds / 2 - time.monotonic()))
    add_version()
    change(server, model, "load")
    change(server, other, "unload")
    changes += 3
    written, _ = process.communicate(timeout=seconds + 60)
    return Soaked(Load(**json.loads(written)), changes)


def change(server: Server, model: str, what: str) -> None:
    """Load or unload a model; of one that is loaded, what is new."""
    status, said = server.get(f"v2/repository/models/{model}/{what}", b"{}")
    if status != 200:
        raise RuntimeError(f"the server did not {what} {model}: {said.decode()}")
