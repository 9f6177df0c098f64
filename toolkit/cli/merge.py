"""``toolkit merge``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Optional, cast

import typer

__all__ = ["merge_command"]


@contextmanager
def _without_scipy() -> Iterator[None]:
    """Hide scipy, which numba imports where it finds it: a quarter of a second.

    It is for matrix products, and merging compiles none.
    """
    hidden = "scipy" not in sys.modules
    if hidden:
        sys.modules["scipy"] = cast(ModuleType, None)  # how Python notes what is not to be had
    try:
        yield
    finally:
        if hidden:
            del sys.modules["scipy"]


def merge_command(
    config: Annotated[
        Path,
        typer.Argument(help="A merge, or a mixture of experts, as mergekit's.", metavar="CONFIG"),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Argument(help="The checkpoint folder to write.", metavar="OUT"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything headers tell, print the plan, stop.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Merge unrelated models too; replace an earlier merge."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the finished files of a stopped merge.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of random methods.")] = 0,
    threads: Annotated[int, typer.Option(help="Tensors merged at a time; 0: one per core.")] = 0,
    shard_size: Annotated[int, typer.Option(help="Most bytes of an output file.")] = 5_000_000_000,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Merge checkpoints of one architecture into one; mergekit configs work unchanged.

    A config with experts: makes a sparse mixture of them, as mergekit-moe does.

    Weights are streamed: memory does not grow with the models. OUT appears when all is written.
    """
    from toolkit.cli.terminal import pairs, progress, show

    with _without_scipy():
        from toolkit.merge import MergeOptions, merge, plan

    options = MergeOptions(
        seed=seed, threads=threads, shard_bytes=shard_size, force=force, resume=resume
    )
    if out is None and not dry_run:
        raise typer.BadParameter("name the folder to write, or give --dry-run", param_hint="'OUT'")
    if dry_run or out is None:
        planned = plan(config, options)
        facts: dict[str, Any] = {
            "method": planned.method,
            "tensors": len(planned.outputs),
            "bytes read": planned.nbytes_read,
            "bytes written": planned.nbytes,
            "memory bound": planned.memory(options.workers),
            "seconds, about": round(planned.seconds(options.workers), 1),
            "input tensors not used": len(planned.unused),
            "warnings": list(planned.warnings),
        }
        show(facts, as_json=json, tables=[pairs(f"{config} (dry run)", facts)])
        return
    with progress() as report:
        done = merge(config, out, options, report)
    show(done.to_json(), as_json=json, tables=[pairs(str(out), done.to_json())])
