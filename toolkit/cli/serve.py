"""``toolkit serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from toolkit.serving import Endpoints

__all__ = ["serve_command"]


def serve_command(
    path: Annotated[Path, typer.Argument(help="A bundle, or a model repository.", metavar="PATH")],
    tritonserver: Annotated[
        Optional[Path],  # noqa: UP045  (typer on Python 3.10 reads this at run time)
        typer.Option(help="The server's program [default: tritonserver on PATH]."),
    ] = None,
    image: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Without a program: its image, run by docker or podman.", envvar="TRITON_IMAGE"
        ),
    ] = None,
    backend_directory: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The program's backends [default: where it looks itself]."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address it listens at.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="For HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="For gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="For metrics.")] = 8002,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model's name, of a bundle [default: its folder]."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="Where a bundle's instances run.")
    ] = "auto",
    wait: Annotated[
        float, typer.Option(min=1, help="Seconds by which every model must be ready.")
    ] = 120.0,
    json: Annotated[
        bool, typer.Option("--json", help="Print the endpoints as JSON, once it is ready.")
    ] = False,
) -> int:
    """Start your Triton on a bundle or a repository, for development; Ctrl-C ends it.

    A bundle is packaged into a folder that goes with the server. The server's log goes to stderr.
    """
    from toolkit.package import PackageOptions
    from toolkit.serving import ServeOptions, serve

    options = ServeOptions(
        tritonserver=tritonserver, image=image, backends=backend_directory, host=host,
        http=http_port, grpc=grpc_port, metrics=metrics_port, seconds=wait,
        package=PackageOptions(name=name, device=device),
    )  # fmt: skip
    return serve(path, options, lambda endpoints: _show(endpoints, json=json))


def _show(endpoints: Endpoints, *, json: bool) -> None:
    from toolkit.cli.terminal import show

    http, grpc = (f"{endpoints.host}:{port}" for port in (endpoints.http, endpoints.grpc))
    model, client = endpoints.models[0], endpoints.repository / "client.py"
    data = {
        "models": list(endpoints.models),
        "http": f"http://{http}",
        "grpc": f"grpc://{grpc}",
        "metrics": f"http://{endpoints.host}:{endpoints.metrics}/metrics",
        "repository": str(endpoints.repository),
    }
    lines = [
        f"READY: {', '.join(endpoints.models)}",
        f"HTTP {data['http']}, gRPC {data['grpc']}, metrics {data['metrics']}",
        f"curl {data['http']}/v2/models/{model}/config",
    ]
    if client.is_file():
        lines.append(f"python {client} {model} --url {grpc}")
    show(data, as_json=json, tables=[*lines, "Ctrl-C ends it."])
    sys.stdout.flush()
