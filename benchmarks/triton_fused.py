"""A fused ensemble served as one model against the same members as Triton's own ensemble."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import ratio, spread
from benchmarks.rows import Row
from benchmarks.serving import Load, Requests, expected_of, load, on_server
from benchmarks.serving_models import LONG, SHORT, write_bundle
from tests.triton.server import Server
from toolkit.bundle import Manifest
from toolkit.feeds import make_feeds
from toolkit.package import PackageOptions, package_triton
from toolkit.pipeline import package_apart

__all__ = ["run"]

CLIENTS = (1, 4, 16)
# What the project asks of every case, and where members share a backbone: apart they do the same
# products, on cores that long inputs keep busy either way.
FLOOR, GAIN = 0.95, 1.2
KINDS = {"shared backbone": True, "members apart": False}


def run(*, quick: bool) -> list[Row]:
    """Both kinds of ensemble, short and long inputs, 1, 4 and 16 clients."""
    layers, width = (2, 128) if quick else (4, 256)
    seconds, rounds = (0.7, 1) if quick else (2.0, 5)
    rows = []
    for kind, shared in KINDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            bundle = write_bundle(folder / "work", shared=shared, layers=layers, width=width)
            repository = folder / "models"
            options = PackageOptions(name="served")
            package_triton(bundle, repository, options)
            package_apart(bundle, repository, options)
            with on_server(repository, folder / "server") as server:
                for length in (SHORT, LONG):
                    requests = _requests(bundle, folder, length)
                    for clients in CLIENTS:
                        what = f"{kind}, {length} tokens, {clients} clients"
                        floor = GAIN if shared else FLOOR
                        rows += _compare(server, requests, what, clients, seconds, rounds, floor)
    return rows


def _requests(bundle: Path, folder: Path, length: int) -> Requests:
    manifest = Manifest.read(bundle / "manifest.json")
    specs = [record.spec() for record in manifest.inputs]
    rng = np.random.default_rng(length)
    feeds = [make_feeds(specs, {"batch": 1, "sequence": length}, rng, "full") for _ in range(16)]
    return Requests.write(
        folder, str(length), feeds, expected_of(bundle / "model.onnx", feeds, ["logits"])
    )


def _compare(  # noqa: PLR0913, PLR0917  (each is a different thing)
    server: Server,
    requests: Requests,
    what: str,
    clients: int,
    seconds: float,
    rounds: int,
    floor: float,
) -> list[Row]:
    """In turns, so that a slow moment of the machine hits both; the first round warms up."""
    found: dict[str, list[Load]] = {"served": [], "served_unfused": []}
    for turn in range(-1, rounds):
        for model in list(found) if turn % 2 == 0 else list(found)[::-1]:
            one = load(server, model, requests, concurrency=clients, seconds=seconds)
            if one.wrong or one.lost:
                raise RuntimeError(f"{model} gave {one.wrong} wrong answers, lost {one.lost}")
            if not one.answers:
                raise RuntimeError(f"{model} gave no answer in {one.seconds} s: is it quiet here?")
            if turn >= 0:
                found[model].append(one)
    fused, apart = found["served"], found["served_unfused"]
    faster = ratio([one.throughput for one in fused], [one.throughput for one in apart])
    tail = ratio([one.p99 for one in fused], [one.p99 for one in apart])
    rates = [one.throughput for one in fused]
    return [
        Row(
            f"{what}: throughput, fused / unfused", faster.median, "x", (faster.low, faster.high),
            floor=floor,
        ),
        Row(f"{what}: p99, fused / unfused", tail.median, "x", (tail.low, tail.high)),
        Row(
            f"{what}: fused", statistics.median(rates), "1/s", spread(rates),
            beside={
                "unfused": statistics.median(one.throughput for one in apart),
                "p99 ms": statistics.median(one.p99 for one in fused) * 1e3,
                "unfused p99 ms": statistics.median(one.p99 for one in apart) * 1e3,
            },
        ),
    ]  # fmt: skip
