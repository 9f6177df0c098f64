"""The gating kernels on this machine's GPU: right, clean, and how near the memory's speed.

    python -m benchmarks.gpu.topk_gating --write docs/gpu-results.md

checks every kernel against PyTorch in float64, runs the checks again under compute-sanitizer where
it is installed, and times the kernels beside the floor, PyTorch, torch.compile and Triton. Exit
status 1 when a bound does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu.correctness import check
from benchmarks.gpu.kernels import Library, Ptx
from benchmarks.gpu.reference import Gating
from benchmarks.gpu.timing import copies, copy_bandwidth, graphed, interleaved
from benchmarks.machine import machine, versions
from benchmarks.pages import put_section
from benchmarks.report import body, show
from benchmarks.rows import Row

__all__ = ["main"]

COMMAND = "python -m benchmarks.gpu.topk_gating"
SECTION = "The gating kernels"
OF_BANDWIDTH, OVER_EAGER, SMALL_US, WEIGHT_ULPS = 0.70, 4.0, 12.0, 1
TOOLS = ("memcheck", "racecheck")


def main(argv: list[str] | None = None) -> int:
    """Return 0, 1 when a bound does not hold, 4 without a GPU."""
    arguments = _parser().parse_args(argv)
    if not torch.cuda.is_available():
        print("error: this machine lacks a CUDA device\n\nhint: toolkit doctor", file=sys.stderr)
        return 4
    most = 1000 if arguments.quick or arguments.sanitized else 65_536
    every = 5 if arguments.sanitized else 1
    rows = _checked(most=most, seed=arguments.seed, every=every)
    if not arguments.sanitized:
        rows += [row for tool in TOOLS for row in _sanitized(tool)]
        rows += _timed(rounds=5 if arguments.quick else 51)
    place = machine()
    result = {
        "benchmark": "gpu/topk_gating",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": COMMAND,
        "machine": {**place, "processor": f"{torch.cuda.get_device_name()}, {place['processor']}"},
        "versions": versions(),
        "rows": [row.as_json() for row in rows],
        "holds": all(row.holds for row in rows),
    }
    if arguments.write:
        put_section(arguments.write, SECTION, body(result))
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        show(result)
    return 0 if result["holds"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="The gating kernels on a GPU.")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
    parser.add_argument(
        "--sanitized", action="store_true", help="what runs under a sanitizer: a part of the checks"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the result as Markdown")
    return parser


def _checked(*, most: int, seed: int, every: int) -> list[Row]:
    """Both ways to run the kernels against the reference."""
    rows = []
    for kernels in (Library(), Ptx()):
        verdict = check(kernels, "cuda", most=most, seed=seed, every=every)
        torch.cuda.synchronize()
        for line in verdict.wrong[:20]:
            print(f"wrong: {line}", file=sys.stderr)
        rows += [
            Row(f"{kernels.name}: calls compared", verdict.cases, "calls", floor=1),
            Row(
                f"{kernels.name}: ids, counts or order wrong", len(verdict.wrong), "calls", bound=0
            ),
            Row(f"{kernels.name}: weights from float64", verdict.ulps, "ulp", bound=WEIGHT_ULPS),
        ]
    return rows


def _sanitized(tool: str) -> list[Row]:
    """One row: errors that compute-sanitizer reports of the checks, or none without it."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        print(f"SKIP compute-sanitizer {tool}: not installed", file=sys.stderr)
        return []
    command = [program, "--tool", tool, "--error-exitcode", "86", sys.executable, "-m",
               "benchmarks.gpu.topk_gating", "--sanitized", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
    return [Row(f"compute-sanitizer {tool}", int(done.returncode != 0), "failed", bound=0)]


def _timed(rounds: int) -> list[Row]:
    return [*_large(rounds), *_small(rounds), *_dispatched(rounds)]


_OURS = ("kernel", "eager")


def _runs(name: str, call: Callable[[int], object]) -> bool:
    """Whether a peer runs here; one that does not is named and left out."""
    try:
        call(0)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - whatever a peer's compiler raises
        print(f"SKIP {name}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        return False
    return True


def _eager(k: int) -> Callable[[torch.Tensor], object]:
    def gate(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, ids = torch.topk(torch.softmax(logits.float(), -1), k)
        return weights / weights.sum(-1, keepdim=True), ids

    return gate


def _large(rounds: int) -> list[Row]:
    """65,536 tokens, 128 experts, 8 of them, bfloat16."""
    tokens, g = 65_536, Gating(128, 8)
    library = Library()
    inputs = copies(torch.randn(tokens, g.num_experts, device="cuda").bfloat16())
    outputs = library.gating(g, inputs[0])
    eager, compiled = _eager(g.k), torch.compile(_eager(g.k))

    def given(place: int) -> torch.Tensor:
        return inputs[place % len(inputs)]

    calls: dict[str, Callable[[int], object]] = {
        "kernel": lambda place: library.gating(g, given(place), out=outputs),
        "eager": lambda place: eager(given(place)),
        "torch.compile": lambda place: compiled(given(place)),
    }
    if importlib.util.find_spec("triton") is not None:
        from benchmarks.gpu.triton_gate import gate

        spare = tuple(torch.empty_like(each) for each in outputs)
        calls["triton"] = lambda place: gate(given(place), g.k, *spare)
    calls = {name: call for name, call in calls.items() if name in _OURS or _runs(name, call)}
    seconds = {name: median(times) for name, times in interleaved(calls, rounds).items()}
    speed = median(copy_bandwidth(rounds))
    moved = inputs[0].nbytes + sum(each.nbytes for each in outputs)
    reached = moved / seconds["kernel"] / speed
    what = "T=65,536 E=128 k=8 bfloat16"
    peers = {name: time * 1e6 for name, time in seconds.items() if name != "kernel"}
    floor = {"floor": moved / speed * 1e6}
    return [
        Row(f"{what}: gating", seconds["kernel"] * 1e6, "us", beside={**floor, **peers}),
        Row(f"{what}: of copy bandwidth", reached, "x", floor=OF_BANDWIDTH),
        Row(f"{what}: eager / kernel", seconds["eager"] / seconds["kernel"], "x", floor=OVER_EAGER),
    ]


def _small(rounds: int) -> list[Row]:
    """64 tokens, 64 experts: gating and dispatch in a CUDA graph."""
    g, library = Gating(64, 6), Library()
    logits = torch.randn(64, g.num_experts, device="cuda").bfloat16()
    gated = library.gating(g, logits)
    sorted_ = library.dispatch_outputs(gated[1], g.num_experts)

    def ours() -> None:
        library.gating(g, logits, out=gated)
        library.dispatch(gated[1], g.num_experts, out=sorted_)

    peer = _eager_dispatch(g, logits)
    calls = {"kernels": graphed(ours)}
    if _runs("eager in a CUDA graph", lambda _: calls.update(eager=graphed(peer))):
        calls["eager"](0)
    seconds = {name: median(times) * 1e6 for name, times in interleaved(calls, rounds).items()}
    what = "T=64 E=64 k=6, CUDA graph: gating + dispatch"
    found = seconds.pop("kernels")
    return [Row(what, found, "us", bound=SMALL_US, beside=seconds)]


def _eager_dispatch(g: Gating, logits: torch.Tensor) -> Callable[[], object]:
    eager = _eager(g.k)
    experts = torch.arange(g.num_experts, device="cuda")

    def call() -> object:
        _, ids = eager(logits)
        order = torch.sort(ids.flatten(), stable=True)
        # bincount waits for the host to learn its size, which a graph cannot hold.
        counts = (ids.flatten()[:, None] == experts).sum(0)
        return order, counts.cumsum(0)

    return call


def _dispatched(rounds: int) -> list[Row]:
    """Dispatch alone, of many slots."""
    library, experts = Library(), 128
    ids = torch.randint(experts, (65_536, 8), device="cuda")
    out = library.dispatch_outputs(ids, experts)

    def eager() -> object:
        flat = ids.flatten()
        return torch.sort(flat, stable=True), torch.bincount(flat, minlength=experts)

    calls: dict[str, Callable[[int], object]] = {
        "kernels": lambda _: library.dispatch(ids, experts, out=out),
        "eager": lambda _: eager(),
    }
    seconds = {name: median(times) * 1e6 for name, times in interleaved(calls, rounds).items()}
    what = "T=65,536 E=128 k=8: dispatch"
    return [Row(what, seconds["kernels"], "us", beside={"sort + bincount": seconds["eager"]})]


if __name__ == "__main__":
    sys.exit(main())
