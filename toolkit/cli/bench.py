"""``toolkit bench``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.bench import BenchOptions, BenchResult, Load, Side
    from toolkit.progress import Progress

__all__ = ["bench_command"]

# Optional[…] throughout, because typer on Python 3.10 reads it at run time.
_Path = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="A bundle or an .onnx file.", metavar="PATH", show_default=False),
]
_Runtimes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="cpu, cuda, ort-tensorrt, tensorrt, tensorrt-rtx; repeat for several [default: cpu]."
    ),
]
_Shapes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="NAME=SIZE,… of a point; may be given several times."),
]
_Compare = Annotated[
    Optional[tuple[Path, Path]],  # noqa: UP045
    typer.Option(help="Instead: two bundles, .onnx files or saved bench.json.", metavar="A B"),
]
_Members = Annotated[
    bool, typer.Option("--members", help="Export the bundle's members and hold it against them.")
]
_Against = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(help="A bundle or .onnx file to hold it against; several run in sequence."),
]
_Threads = Annotated[int, typer.Option(min=0, help="Of ONNX Runtime; 0: one on each core.")]
_Seconds = Annotated[float, typer.Option(min=0.1, help="When a point ends at the latest.")]
_Margin = Annotated[float, typer.Option(min=0.001, help="Smallest share that is a difference.")]
_Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-o", "--out", help="Folder for bench.json and bench.html [default: PATH.bench]."),
]
_Root = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="With --members: where the recipe's models lie now."),
]
_AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="With --members: run the recipe's factories.")
]
_Server = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Drive this Triton server: http://localhost:8000 or grpc://localhost:8001."),
]
_Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="With --server: NAME or NAME:VERSION there [default: PATH's name]."),
]
_Concurrency = Annotated[str, typer.Option(help="With --server: requests in flight.")]
_Client = Annotated[
    Literal["auto", "toolkit", "tritonclient", "perf_analyzer"],
    typer.Option(help="With --server: who sends; auto is perf_analyzer if it is there."),
]
_ClientPython = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="With --server: an interpreter that has tritonclient, for gRPC."),
]


@dataclass(frozen=True)
class _Others:
    """What to hold a graph against."""

    members: bool
    against: tuple[Path, ...]
    root: Path | None
    allow_code: bool


def bench_command(
    path: _Path = None,
    runtime: _Runtimes = None,
    shape: _Shapes = None,
    compare: _Compare = None,
    members: _Members = False,
    against: _Against = None,
    threads: _Threads = 0,
    seconds: _Seconds = 10.0,
    margin: _Margin = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of the inputs.")] = 0,
    server: _Server = None,
    model: _Model = None,
    concurrency: _Concurrency = "1,4,16",
    client: _Client = "auto",
    client_python: _ClientPython = None,
    out: _Out = None,
    root: _Root = None,
    allow_code: _AllowCode = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latency, rate and memory of a bundle or an ONNX file, compare two, or load a server.

    Runs are repeated until windows agree; a comparison takes turns on the same inputs. Decoders are
    measured reading a text (prefill) and adding a token to it (decode).
    """
    from toolkit.bench import BenchOptions, Load, check_out, parse_concurrency, parse_shape
    from toolkit.cli.benched import save, show_bench
    from toolkit.cli.terminal import progress

    if (path is None) == (compare is None):
        raise typer.BadParameter("wanted PATH, or --compare A B")
    if compare is not None and (members or against or server):
        raise typer.BadParameter("--compare takes no --members, --against or --server")
    if server is not None and (members or against):
        raise typer.BadParameter("--server takes no --members or --against")
    options = BenchOptions(
        tuple(dict.fromkeys(runtime or ("cpu",))), threads=threads, seconds=seconds,
        margin=margin, seed=seed,
    )  # fmt: skip
    points = [parse_shape(text) for text in shape or ()]
    if out is None and path is not None:
        out = Path(f"{path.resolve()}.bench")
    check_out(out)
    others = _Others(members, tuple(against or ()), root, allow_code)
    with progress() as report:
        if path is None:
            result = _compare(compare, points, options, report)
        elif server is not None:
            sizes = parse_concurrency(concurrency)
            load = Load(server, model, sizes, client, client_python)
            result = _drive(path, load, points, options, report)
        else:
            result = _measure(path, points, options, others, report)
    show_bench(result, save(result, out), as_json=json)


def _compare(
    both: tuple[Path, Path] | None,
    points: Sequence[Mapping[str, int]],
    options: BenchOptions,
    report: Progress,
) -> BenchResult:
    from toolkit.bench import compare

    assert both is not None
    return compare(*both, points, options, report)


def _drive(
    path: Path,
    load: Load,
    points: Sequence[Mapping[str, int]],
    options: BenchOptions,
    report: Progress,
) -> BenchResult:
    from toolkit.bench import bench_server, open_subject

    return bench_server(open_subject(path), load, points, options, report)


def _measure(
    path: Path,
    points: Sequence[Mapping[str, int]],
    options: BenchOptions,
    others: _Others,
    report: Progress,
) -> BenchResult:
    from toolkit.bench import bench, open_subject

    subject = open_subject(path)
    with ExitStack() as stack:
        side = _side(path, others, stack, report)
        return bench(subject, points, options, side, report)


def _side(path: Path, others: _Others, stack: ExitStack, report: Progress) -> Side | None:
    """The members, exported for the while, or the graphs that were named."""
    from toolkit.bench import Side, open_subject

    if others.against:
        graphs = tuple(open_subject(each) for each in others.against)
        return Side(" + ".join(each.name for each in graphs), graphs)
    if not others.members:
        return None
    from toolkit.bench import member_subject
    from toolkit.bundle import open_bundle
    from toolkit.pipeline import export_members

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toolkit-bench-")))
    made = export_members(
        open_bundle(path), folder, allow_code=others.allow_code, root=others.root, progress=report
    )
    return Side("its members", tuple(member_subject(name, file) for name, file in made.items()))
