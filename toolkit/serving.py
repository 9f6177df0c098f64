"""The user's own Triton on a bundle or a repository, for development."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from toolkit.bundle import is_bundle
from toolkit.errors import CapabilityError, EngineError, PackageError
from toolkit.package import MARK, PackageOptions, package_triton

__all__ = ["Endpoints", "ServeOptions", "serve"]

_STOPPING = 30.0  # seconds a server may take to end before it is killed
_ENGINES = ("docker", "podman")
_FLAGS = (
    "--disable-auto-complete-config", "--exit-on-error=true", "--strict-readiness=true",
)  # fmt: skip


@dataclass(frozen=True)
class ServeOptions:
    """How the server is started.

    Attributes:
        tritonserver: The program; None looks for it on PATH.
        image: An image of it, for docker or podman, where there is no program.
        backends: Folder of the program's backends; None is where it looks itself.
        host: Where it listens.
        http, grpc, metrics: Its ports.
        seconds: By when every model must be ready.
        package: How a bundle is packaged.
    """

    tritonserver: Path | None = None
    image: str | None = None
    backends: Path | None = None
    host: str = "127.0.0.1"
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    seconds: float = 120.0
    package: PackageOptions | None = None


@dataclass(frozen=True)
class Endpoints:
    """Where a server that is ready answers.

    Attributes:
        repository: The models' folder.
        models: Their names.
        host: Where it listens.
        http: Port of HTTP.
        grpc: Port of gRPC.
        metrics: Port of its metrics.
    """

    repository: Path
    models: tuple[str, ...]
    host: str
    http: int
    grpc: int
    metrics: int


def serve(
    path: Path,
    options: ServeOptions,
    ready: Callable[[Endpoints], None],
    log: IO[str] = sys.stderr,
) -> int:
    """Start the server and stay until it ends, or until Ctrl-C or a SIGTERM, which end it.

    Args:
        path: A bundle, which is packaged into a folder that goes with the server, or a repository.
        options: How.
        ready: Called once, when every model is ready.
        log: Where the server's log goes, line by line.

    Returns:
        0 after Ctrl-C, else the server's exit code.

    Raises:
        CapabilityError: If there is no server and no image to run.
        EngineError: If it ends, or is not ready in time.
        PackageError: If ``path`` is neither, or the bundle cannot be packaged.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-serve-") as name:
        scratch = Path(name)
        _require(options)
        repository = _repository(path, options, scratch)
        endpoints = Endpoints(
            repository, _models(repository), options.host, options.http, options.grpc,
            options.metrics,
        )  # fmt: skip
        command, environment = _command(repository, options, scratch)
        with _ended_by_signals(), _running(command, environment, scratch, log) as process:
            try:
                _wait(process, endpoints, options.seconds)
                ready(endpoints)
                return process.wait()
            except KeyboardInterrupt:
                return 0


def _require(options: ServeOptions) -> None:
    """Whether there is anything to start.

    Raises:
        CapabilityError: If not, saying how to get it.
    """
    program = options.tritonserver
    if program is not None:
        if shutil.which(program) is None:
            raise CapabilityError(
                f"{program} is no program that can be started", hint="--tritonserver PATH"
            )
        return
    if shutil.which("tritonserver"):
        return
    hint = (
        "--tritonserver PATH if it is elsewhere, or --image IMAGE with docker or podman: NVIDIA's"
        " catalogue has tritonserver images whose tags end in -py3"
    )
    if options.image is None:
        raise CapabilityError("there is no program tritonserver on PATH", hint=hint)
    if _engine() is None:
        raise CapabilityError(
            f"there is no tritonserver on PATH, and no docker or podman to run {options.image}",
            hint="install one of the three",
        )


def _engine() -> str | None:
    return next((name for name in _ENGINES if shutil.which(name)), None)


def _repository(path: Path, options: ServeOptions, scratch: Path) -> Path:
    if is_bundle(path):
        package_triton(path, scratch / "models", options.package)
        return scratch / "models"
    if not path.is_dir() or not any(path.glob("*/config.pbtxt")):
        kind = "holds no model with a config.pbtxt" if path.is_dir() else "is no folder"
        raise PackageError(
            f"{path} {kind}, wanted a bundle or a model repository",
            hint="toolkit package BUNDLE -o models makes a repository",
        )
    return path.resolve()


def _models(repository: Path) -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in repository.glob("*/config.pbtxt")))


def _command(
    repository: Path, options: ServeOptions, scratch: Path
) -> tuple[list[str], dict[str, str]]:
    """The repository's own ``serve.sh``, which knows its flags, or the server itself."""
    environment = dict(os.environ)
    programs = scratch / "bin"
    programs.mkdir()
    environment["PATH"] = os.pathsep.join([str(programs), environment.get("PATH", os.defpath)])
    found = options.tritonserver or shutil.which("tritonserver")
    environment.pop("TRITON_IMAGE", None)
    if found is not None:
        real = shutil.which(found)
        (programs / "tritonserver").symlink_to(Path(str(real)).resolve())
    elif options.image is not None:
        environment["TRITON_IMAGE"] = options.image
        if _engine() == "podman":
            (programs / "docker").write_text('#!/bin/sh\nexec podman "$@"\n', encoding="utf-8")
            (programs / "docker").chmod(0o755)
    environment |= {
        "HTTP_PORT": str(options.http), "GRPC_PORT": str(options.grpc),
        "METRICS_PORT": str(options.metrics),
    }  # fmt: skip
    own = [f"--http-address={options.host}", f"--grpc-address={options.host}"]
    own.append(f"--metrics-address={options.host}")
    if options.backends is not None:
        own.append(f"--backend-directory={options.backends.absolute()}")
    script = repository / "serve.sh"
    if script.is_file() and MARK in script.read_text(encoding="utf-8", errors="replace"):
        return [str(script), *own], environment
    return _bare(repository, options, own), environment


def _bare(repository: Path, options: ServeOptions, own: Sequence[str]) -> list[str]:
    """For a repository that is not ours."""
    flags = [
        *_FLAGS, f"--http-port={options.http}", f"--grpc-port={options.grpc}",
        f"--metrics-port={options.metrics}", *own,
    ]  # fmt: skip
    if options.tritonserver is None and shutil.which("tritonserver") is None:
        return [
            "docker", "run", "--rm", "--network=host", "--shm-size=1g", "-v",
            f"{repository}:/models:ro", str(options.image), "tritonserver",
            "--model-repository=/models", *flags,
        ]  # fmt: skip
    return ["tritonserver", f"--model-repository={repository}", *flags]


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A SIGTERM counts as Ctrl-C; both must end the server, whose group is its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], scratch: Path, log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a session of its own, ended with all it started."""
    # Python backends import a model.py of the working directory in place of their own.
    empty = scratch / "empty"
    empty.mkdir()
    process = subprocess.Popen(
        list(command), cwd=empty, env=dict(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        _stop(process)
        reader.join(timeout=5)


def _copy(lines: IO[bytes], log: IO[str]) -> None:
    for line in lines:
        log.write(line.decode(errors="replace").replace("\0", ""))
        log.flush()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait, and end what is left; a second Ctrl-C does not wait."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=_STOPPING)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], endpoints: Endpoints, seconds: float) -> None:
    """Until every model is ready.

    Raises:
        EngineError: If the server ends, or the time is up.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EngineError(
                f"the server ended with code {process.returncode} before it was ready",
                hint="its log is above; toolkit package --check names what a server refuses,"
                " --http-port and others choose free ports",
            )
        if _is_ready(endpoints):
            return
        time.sleep(0.2)
    raise EngineError(
        f"the server was not ready after {seconds:.0f} seconds",
        hint="its log is above; --wait gives it longer",
    )


def _is_ready(endpoints: Endpoints) -> bool:
    connection = http.client.HTTPConnection(endpoints.host, endpoints.http, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
