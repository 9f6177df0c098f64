"""``toolkit package``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from toolkit.package import Packaged, PackageOptions

__all__ = ["package_command"]


# What each option of the command is.
_Bundle = Annotated[
    Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
    typer.Argument(help="A bundle made by export.", metavar="BUNDLE", show_default=False),
]
_Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-o", "--out", help="The model repository to add to, or the C++ project."),
]
_Check = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Instead, hold this model repository against Triton's rules."),
]
_Form = Annotated[
    Literal["triton", "cpp"], typer.Option("--format", help="What to package it for.")
]
_Name = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The model's name on the server [default: the bundle's folder]."),
]
_Pipeline = Annotated[
    bool,
    typer.Option("--pipeline", help="Also NAME_text: tokenizer, model, answer; texts go in."),
]
_Unfused = Annotated[
    bool,
    typer.Option(
        "--unfused", help="Instead NAME_unfused: the members, exported again, as an ensemble."
    ),
]
_Artifact = Annotated[
    Literal["auto", "onnx", "plan", "both"],
    typer.Option(help="What is served; auto: the TensorRT plan, if there is one."),
]
_Engine = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(help="A bundle of the same graph, built for another GPU; may be repeated."),
]
_Accelerator = Annotated[
    Literal["none", "tensorrt"],
    typer.Option(help="tensorrt: ONNX Runtime builds engines of the graph on the server."),
]
_CudaGraphs = Annotated[bool, typer.Option("--cuda-graphs", help="Capture the plan's launches.")]
_Device = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(help="Where instances run; auto: every GPU there is, else the CPU."),
]
_Instances = Annotated[int, typer.Option(min=1, help="Side by side, on each device.")]
_Versions = Annotated[
    int, typer.Option(min=0, help="Newest versions that are served; 0: all of them.")
]
_QueueDelay = Annotated[
    int, typer.Option(min=0, help="Microseconds a request may wait for a fuller batch.")
]
_QueueSize = Annotated[
    int, typer.Option(min=0, help="Requests that may wait before others are refused; 0: any.")
]
_QueueTimeout = Annotated[
    int, typer.Option(min=0, help="Microseconds a request may wait at all; 0: for ever.")
]
_PreferredBatch = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option(help="Rows that are run without waiting for more; may be repeated."),
]
_State = Annotated[
    Literal["auto", "server", "client"],
    typer.Option(help="Who keeps a decoder's caches; auto: the server, where it can."),
]
_Sequences = Annotated[
    int, typer.Option(min=1, help="Sequences whose caches the server keeps at once.")
]
_Labels = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Labels, one a line [default: the checkpoint's]."),
]
_AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="For --unfused: run the code factories name.")
]
_Root = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="For --unfused: where the models lie [default: as at export]."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def package_command(
    bundle: _Bundle = None,
    out: _Out = None,
    check: _Check = None,
    form: _Form = "triton",
    name: _Name = None,
    pipeline: _Pipeline = False,
    unfused: _Unfused = False,
    artifact: _Artifact = "auto",
    engine: _Engine = None,
    accelerator: _Accelerator = "none",
    cuda_graphs: _CudaGraphs = False,
    device: _Device = "auto",
    instances: _Instances = 1,
    versions: _Versions = 1,
    queue_delay: _QueueDelay = 100,
    queue_size: _QueueSize = 1024,
    queue_timeout: _QueueTimeout = 0,
    preferred_batch: _PreferredBatch = None,
    state: _State = "auto",
    sequences: _Sequences = 64,
    labels: _Labels = None,
    allow_code: _AllowCode = False,
    root: _Root = None,
    json: _Json = False,
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
    if pipeline and unfused:
        raise typer.BadParameter("--pipeline and --unfused are two packages: run it for each")
    from toolkit.package import PackageOptions

    options = PackageOptions(
        name=name, device=device, instances=instances, queue_delay=queue_delay,
        queue_size=queue_size, queue_timeout=queue_timeout, preferred=tuple(preferred_batch or ()),
        versions=versions, artifact=artifact, engines=tuple(engine or ()), accelerator=accelerator,
        cuda_graphs=cuda_graphs, state=state, sequences=sequences, labels=labels,
    )  # fmt: skip
    if unfused:
        return _apart(bundle, out, form, options, allow_code=allow_code, root=root, json=json)
    from toolkit.package import package_texts, package_triton

    make = package_texts if pipeline else package_triton
    return _show(make(bundle, out, options), out, form, json=json)


def _apart(
    bundle: Path,
    out: Path,
    form: str,
    options: PackageOptions,
    *,
    allow_code: bool,
    root: Path | None,
    json: bool,
) -> int:
    from toolkit.cli.terminal import progress
    from toolkit.pipeline import package_apart

    with progress() as report:
        packaged = package_apart(bundle, out, options, report, allow_code=allow_code, root=root)
    return _show(packaged, out, form, json=json)


def _show(packaged: Packaged, out: Path, form: str, *, json: bool) -> int:
    from toolkit.cli.terminal import show, table

    files = {
        path.relative_to(packaged.model.parent).as_posix(): path.stat().st_size
        for path in packaged.files
    }
    data = {
        "format": form,
        "model": packaged.model.name,
        "version": packaged.version,
        "max_batch_size": packaged.max_batch_size,
        "models": list(packaged.models),
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
