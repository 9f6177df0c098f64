"""``toolkit package``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

__all__ = ["package_command"]


def package_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by export.", metavar="BUNDLE")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model repository to add to.")],
    form: Annotated[
        Literal["triton"], typer.Option("--format", help="What to package it for.")
    ] = "triton",
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model's name on the server [default: the bundle's folder]."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        typer.Option(help="Where instances run; auto: every GPU there is, else the CPU."),
    ] = "auto",
    instances: Annotated[int, typer.Option(min=1, help="Side by side, on each device.")] = 1,
    queue_delay: Annotated[
        int, typer.Option(min=0, help="Microseconds a request may wait for a fuller batch.")
    ] = 100,
    queue_size: Annotated[
        int, typer.Option(min=0, help="Requests that may wait before others are refused; 0: any.")
    ] = 1024,
    queue_timeout: Annotated[
        int, typer.Option(min=0, help="Microseconds a request may wait at all; 0: for ever.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Make a Triton model repository of a bundle, or add a version to one.

    The configuration is read off the graph; a bundle that failed its proof is refused.
    """
    from toolkit.cli.terminal import show, table
    from toolkit.package import PackageOptions, package_triton

    options = PackageOptions(name, device, instances, queue_delay, queue_size, queue_timeout)
    packaged = package_triton(bundle, out, options)
    files = {
        path.relative_to(packaged.model.parent).as_posix(): path.stat().st_size
        for path in packaged.files
    }
    data = {
        "format": form,
        "model": packaged.model.name,
        "version": packaged.version,
        "max_batch_size": packaged.max_batch_size,
        "files": files,
        "notes": list(packaged.notes),
    }
    title = f"{packaged.model.name}, version {packaged.version}, in {out}"
    rows = [(path, f"{size:,}") for path, size in files.items()]
    notes = [f"note: {note}" for note in packaged.notes]
    start = f"Start a server with {out}/serve.sh; {out}/README.md says more."
    show(data, as_json=json, tables=[table(title, ["file", "bytes"], rows, right=1), *notes, start])
    return 0
