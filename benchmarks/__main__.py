"""List the benchmarks, run one, or run all and write the page."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.pages import put_section
from benchmarks.report import body, page, show

# Results of whole runs, for a page that is written without running all again.
KEPT = Path(__file__).parent.parent / "build" / "benchmarks"
# One module each, with `run(*, quick) -> list[Row]`; the text is what the list prints.
BENCHMARKS = {
    "bench_overhead": "latency that toolkit bench measures against a bare loop",
    "cli_startup": "toolkit --help against python -c pass",
    "fused_vs_members": "a fused graph against its members one by one in ONNX Runtime",
    "skipped_member": "what a member of a gated ensemble costs when it does not run",
    "shared_backbone": "fine-tunes of one frozen backbone, fused, against their own sessions",
    "batched_members": "members of one architecture apart against stacked, without a bound",
    "moe_floor": "a sparse layer as conditionals against the physical floor and its peers",
    "moe_lowerings": "every lowering of sparse layers, and how far auto is from the best",
    "moe_memory": "memory that running a sparse layer takes beyond loading it",
    "silent_neurons": "a down projection that reads the rows of active neurons alone",
    "low_precision": "int8 and weights of 8 and 4 bits against float32: answers, size and speed",
    "sparse_weights": "accuracy that 2:4 and 1:4 cost the digits, before and after distillation",
    "sparse_language": "perplexity that 2:4 costs a small language model, before and after",
    "which_trick": "merge, distil, ensemble, experts, 2:4 and int8 on digits and on text",
    "unstructured": "scattered zeros in CSR against a dense product, without a bound",
    "export_memory": "peak memory of toolkit export against the size of the members",
    "parity_sensitivity": "planted faults the proof finds, and alarms on healthy graphs",
    "localisation": "naming the node that goes wrong in a graph of 200 nodes, on 8 samples",
    "distill_cache": "a step of training from kept targets against live teachers",
    "triton_fused": "a fused ensemble on a Triton server against Triton's ensemble of its members",
    "triton_soak": "a minute of load on a Triton server while models come and go",
    "merge_speed": "toolkit merge against the disk and against mergekit",
    "merge_memory": "peak memory of toolkit merge, and for models of twice the size",
    "merge_agreement": "every merge method against mergekit's own output, element by element",
}


def main(argv: list[str] | None = None) -> int:
    """Return 0, or 1 when a bound does not hold."""
    arguments = _parser().parse_args(argv)
    if arguments.write:
        return _write(arguments.write, quick=arguments.quick, kept=arguments.kept)
    if arguments.name is None:
        for name, text in BENCHMARKS.items():
            print(f"{name:<18} {text}")
        return 0
    result = result_of(arguments.name, quick=arguments.quick, kept=arguments.kept)
    if arguments.into:
        put_section(arguments.into, arguments.name, body(result), list(BENCHMARKS))
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        show(result)
    return 0 if result["holds"] else 1


def result_of(name: str, *, quick: bool = False, kept: bool = False) -> dict[str, Any]:
    """Run it and keep what a whole run gives; with ``kept``, take what an earlier one gave."""
    if kept and (before := _before(name)) is not None:
        return before
    result = measure(name, quick=quick)
    if not quick:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return result


def _before(name: str) -> dict[str, Any] | None:
    """What a whole run gave that was kept; None if there was none."""
    path = KEPT / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def measure(name: str, *, quick: bool) -> dict[str, Any]:
    """Run one benchmark in this process; what ``--json`` prints."""
    rows = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": f"python -m benchmarks {name}" + (" --quick" if quick else ""),
        "machine": machine(),
        "versions": versions(),
        "rows": [row.as_json() for row in rows],
        "holds": all(row.holds for row in rows),
    }


def _write(destination: Path, *, quick: bool, kept: bool) -> int:
    """Run all, each in a process of its own, so that none inherits threads or memory.

    With ``kept``, those that were run before, not quickly, are taken from that run.
    """
    results = []
    for name in BENCHMARKS:
        if kept and (before := _before(name)) is not None:
            results.append(before)
            continue
        print(f"running {name}", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks", name, "--json"]
        done = subprocess.run(
            command + ["--quick"] * quick, stdout=subprocess.PIPE, text=True, check=False
        )
        if not done.stdout:
            print(f"error: {name} gave no result, exit code {done.returncode}", file=sys.stderr)
            return 1
        results.append(json.loads(done.stdout))
    destination.write_text(page(results), encoding="utf-8")
    print(f"wrote {destination}", file=sys.stderr)
    return 0 if all(result["holds"] for result in results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run a benchmark; without a name, list them."
    )
    parser.add_argument("name", nargs="?", choices=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller models")
    parser.add_argument("--write", type=Path, metavar="FILE", help="run all and write a page")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put the result into a page, leave the others"
    )
    parser.add_argument(
        "--kept", action="store_true", help="run only what build/benchmarks has no result of"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
