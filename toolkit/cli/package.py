"""``toolkit package``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from toolkit.package import PackageOptions

__all__ = ["package_command"]


def package_command(
    bundle: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Argument(help="A bundle made by export.", metavar="BUNDLE", show_default=False),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", help="The model repository to add to, or the C++ project."),
    ] = None,
    check: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Instead, hold this model repository against Triton's rules."),
    ] = None,
    form: Annotated[
        Literal["triton", "cpp"], typer.Option("--format", help="What to package it for.")
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
    """Make a Triton model repository of a bundle, add a version to one, or check one.

    The configuration is read off the graph; a bundle that failed its proof is refused. --format cpp
    makes a C++ project that runs the bundle; of the options it takes -o alone.
    """
    if check is not None:
        if bundle is not None or out is not None:
            raise typer.BadParameter("--check takes neither a bundle nor -o")
        return _check(check, json=json)
    if bundle is None or out is None:
        raise typer.BadParameter("wanted BUNDLE -o DIR, or --check DIR")
    if form == "cpp":
        return _program(bundle, out, json=json)
    from toolkit.package import PackageOptions

    options = PackageOptions(name, device, instances, queue_delay, queue_size, queue_timeout)
    return _package(bundle, out, form, options, json=json)


def _package(bundle: Path, out: Path, form: str, options: PackageOptions, *, json: bool) -> int:
    from toolkit.cli.terminal import show, table
    from toolkit.package import package_triton

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


def _program(bundle: Path, out: Path, *, json: bool) -> int:
    from toolkit.cli.terminal import show, table
    from toolkit.package import package_cpp

    packaged = package_cpp(bundle, out)
    files = {
        path.relative_to(packaged.folder).as_posix(): path.stat().st_size for path in packaged.files
    }
    data = {"format": "cpp", "files": files, "notes": list(packaged.notes)}
    rows = [(path, f"{size:,}") for path, size in files.items()]
    notes = [f"note: {note}" for note in packaged.notes]
    start = f"{out}/README.md says how to build and run it."
    show(
        data,
        as_json=json,
        tables=[table(str(out), ["file", "bytes"], rows, right=1), *notes, start],
    )
    return 0


def _check(repository: Path, *, json: bool) -> int:
    """Print what is wrong; 5 if files differ from their manifest, 1 for anything else."""
    from dataclasses import asdict

    from toolkit.cli.terminal import show, table
    from toolkit.package import check_repository

    report = check_repository(repository)
    data = {
        "repository": str(repository),
        "models": {name: report.loads(name) for name in report.models},
        "findings": [asdict(finding) for finding in report.findings],
        "unchecked": list(report.unchecked),
    }
    rows = [(finding.model, finding.level, finding.message) for finding in report.findings]
    found = [table(str(repository), ["model", "level", "found"], rows)] if rows else []
    refused = sum(not report.loads(name) for name in report.models)
    said = (
        f"{len(report.models)} models, {refused} that a server would refuse, {len(rows)} findings"
    )
    unchecked = [f"not checked: {what}" for what in report.unchecked]
    show(data, as_json=json, tables=[*found, *unchecked, said])
    levels = {finding.level for finding in report.findings}
    return 5 if levels == {"changed"} else int(bool(levels))
