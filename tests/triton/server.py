"""A real Triton server for tests, from the environment that ``make test-triton`` makes.

The wheel brings the server and its Python backend, no onnxruntime backend: that is a stand-in.
The one in ``backends`` is Python and refuses what the real one refuses; the one in ``native`` is a
library that runs graphs as the real one does, states of sequences included. Repositories are loaded
as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PYTHON",
    "Server",
    "build_native",
    "environment",
    "free_ports",
    "index",
    "make_backends",
    "serving",
]

_VENV = Path(__file__).resolve().parents[2] / "build" / "venvs" / "triton"
PYTHON = _VENV / "bin" / "python"

_BACKENDS = Path(__file__).parent / "backends"
_NATIVE = Path(__file__).parent / "native"
_SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "cpp"
_LIBRARY = "libtriton_onnxruntime.so"
_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running server: its ports, and where it writes its log."""

    http: int
    grpc: int
    log: Path
    process: subprocess.Popen

    def get(self, path: str, body: bytes | None = None, seconds: float = 120) -> tuple[int, bytes]:
        """Status and content of a request; with a body it is a POST."""
        url = f"http://localhost:{self.http}/{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, body), timeout=seconds
            ) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def check(self) -> None:
        """It still runs; where it does not, its stubs end too, which hold its connections open."""
        if self.process.poll() is not None:
            _end_group(self.process)
            raise AssertionError(f"the server ended:\n{self.logged()[-6000:]}")

    def logged(self) -> str:
        return self.log.read_text(errors="replace").replace("\0", "")


def index(server: Server) -> dict[tuple[str, str], str]:
    """The state of every model and version; "" where the server gives none."""
    _, content = server.get("v2/repository/index", b"{}")
    return {
        (model["name"], model.get("version", "")): model.get("state", "")
        for model in json.loads(content)
    }


def _site() -> Path:
    (found,) = _VENV.glob("lib/python3*/site-packages")
    return found


def build_native(folder: Path) -> tuple[Path | None, str]:
    """Compile the stand-in that is a library; else why not, which is a compiler or headers."""
    if shutil.which("g++") is None:
        return None, "no g++ here"
    fetched = subprocess.run(
        [_SAMPLES / "fetch_headers.sh"], capture_output=True, text=True, check=False
    )
    if fetched.returncode != 0:
        return None, f"no headers of ONNX Runtime: {fetched.stderr.splitlines()[-1:]}"
    (runtime,) = (_site() / "onnxruntime" / "capi").glob("libonnxruntime.so.*")
    headers = _SAMPLES / "build" / "headers" / "usr" / "include"
    folder.mkdir(parents=True, exist_ok=True)
    # What is linked looks for the library by this name, which the package has not.
    (folder / "libonnxruntime.so.1").symlink_to(runtime)
    command = [
        "g++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
        f"-I{headers}", f"-I{headers / 'onnxruntime'}", _NATIVE / "onnxruntime.cpp", runtime,
        f"-Wl,-rpath,{folder}", "-o", folder / _LIBRARY,
    ]  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / _LIBRARY, ""


def make_backends(folder: Path, native: Path | None = None) -> Path:
    """The wheel's backends with a stub for the environment's Python, and a stand-in of ours."""
    wheel = _site() / "pytriton" / "tritonserver"
    shutil.copytree(wheel / "backends", folder)
    python = _site().parent.name.removeprefix("python")
    stub = "triton_python_backend_stub"
    shutil.copy(wheel / "python_backend_stubs" / python / stub, folder / "python" / stub)
    for backend in _BACKENDS.iterdir():
        shutil.copytree(backend, folder / backend.name)
    # A plan of the tests is a graph under another name.
    shutil.copytree(folder / "onnxruntime", folder / "tensorrt")
    if native is not None:
        (folder / "onnxruntime" / "model.py").unlink()
        shutil.copy(native, folder / "onnxruntime" / _LIBRARY)
    return folder


def environment() -> dict[str, str]:
    asked = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    libraries = subprocess.run(
        [PYTHON, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    programs = _site() / "pytriton" / "tritonserver" / "bin"
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(PYTHON.parent), str(programs), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join([libraries, str(_site() / "nvidia_pytriton.libs")]),
        "OMP_NUM_THREADS": "1",
    }


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def serving(
    command: Sequence[str | Path],
    backends: Path,
    folder: Path,
    *,
    wait_ready: bool = True,
    patience: float = 20,
) -> Iterator[Server]:
    """Start ``command`` with what a machine without a GPU needs, and stop it at the end.

    Args:
        command: ``serve.sh`` of a repository, or ``tritonserver`` with its flags.
        backends: What ``make_backends`` made.
        folder: An empty working directory; the log is written beside it.
        wait_ready: Whether to wait until every model is ready, or only for the server to live.
        patience: Seconds it may take to stop before it is killed.

    Raises:
        AssertionError: If it does not come up, with the end of its log.
    """
    http, grpc, metrics = free_ports(3)
    flags = [
        f"--backend-directory={backends}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
        f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
        "--pinned-memory-pool-byte-size=0", "--allow-gpu-metrics=false",
        "--allow-cpu-metrics=false",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, command), *flags], cwd=folder, env=environment(), stdout=file,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    server = Server(http, grpc, log, process)
    try:
        _wait(server, "ready" if wait_ready else "live")
        yield server
    finally:
        _stop(process, patience)


def _wait(server: Server, state: str) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        server.check()
        try:
            if server.get(f"v2/health/{state}")[0] == 200:
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"not {state} after {_SECONDS} s:\n{server.logged()[-6000:]}")


def _stop(process: subprocess.Popen, patience: float) -> None:
    try:
        process.terminate()
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end_group(process)
        process.wait()


def _end_group(process: subprocess.Popen) -> None:
    """Stubs are processes of their own; the session is ours, so is its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
