"""The C++ client beside the models, built and asking the real server: bit-equal, or one message."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from tests.cpp import INCLUDE, fetch_headers
from tests.triton.test_serving import feeds_of, run_locally

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def client(repository, tmp_path_factory):
    """Built from its one file, without a warning; a call gives what it says."""
    program = tmp_path_factory.mktemp("client") / "client"
    done = subprocess.run(
        ["c++", "-std=c++17", "-O1", "-pthread", "-Wall", "-Wextra", "-isystem",
         fetch_headers() / INCLUDE, repository / "client.cpp", "-o", program],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

    def call(*arguments):
        command = [program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return call


def saved(folder, feeds):
    folder.mkdir()
    for name, array in feeds.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array))
    return folder


@pytest.mark.parametrize("name", ["digits", "encoder", "experts"])
def test_its_answers_are_onnx_runtimes_bit_for_bit(
    client, server, repository, bundles, tmp_path, name
):
    feeds = feeds_of(bundles[name], 1)
    newest = max((repository / name).glob("[0-9]*"), key=lambda path: int(path.name))
    done = client(
        newest, "--server", f"localhost:{server.http}", "--model", name,
        "--feeds", saved(tmp_path / "feeds", feeds), "--outputs", tmp_path / "outputs",
        "--iterations", 5, "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["runs"], said["runtime"]) == (5, f"{name} at localhost:{server.http}")
    wanted = run_locally(bundles[name], feeds)
    assert {path.stem for path in (tmp_path / "outputs").iterdir()} == set(wanted)
    for output, array in wanted.items():
        found = np.load(tmp_path / "outputs" / f"{output}.npy")
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


def test_workers_have_connections_of_their_own(client, server, repository, bundles, tmp_path):
    done = client(
        repository / "digits" / "1", "--server", f"localhost:{server.http}", "--model", "digits",
        "--feeds", saved(tmp_path / "feeds", feeds_of(bundles["digits"], 0)),
        "--workers", 3, "--iterations", 20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "60 runs, 3 at a time" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--model", "nothing"], 1, "the server refuses: Request for unknown model: 'nothing'"),
        (["--model", "digits", "--version", "9"], 1, "the server refuses: "),
        (["--model", "digits", "--server", "localhost:1"], 1, "no server answers at localhost:1"),
        (["--model", "digits", "--server", "8000"], 2, "the server is '8000', wanted HOST:PORT"),
        ([], 2, "no --model"),
    ],
)
def test_a_mistake_is_one_message(
    client, server, repository, bundles, tmp_path, options, code, said
):
    feeds = saved(tmp_path / "feeds", feeds_of(bundles["digits"], 0))
    place = [] if "--server" in options else ["--server", f"localhost:{server.http}"]
    done = client(repository / "digits" / "1", "--feeds", feeds, *place, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
