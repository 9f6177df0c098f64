"""``toolkit serve`` starts the real server, says where it is, and ends it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.triton.server import environment, free_ports
from toolkit.cli import main

pytestmark = pytest.mark.triton

HOST = "127.0.0.1"
TOOLKIT = [sys.executable, "-c", "from toolkit.cli import main; main()"]


def start(path, backends, *options):
    """The command with ports of its own; its process and where HTTP is."""
    http, grpc, metrics = free_ports(3)
    found = environment()
    command = [
        *TOOLKIT, "serve", str(path), "--backend-directory", str(backends), "--json",
        "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics),
        *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=found, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, f"http://{HOST}:{http}"


def children(pid):
    done = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bundle_is_served_until_a_signal_ends_it_all(bundles, backends, number):
    process, url = start(bundles["digits"], backends, "--name", "mine")
    try:
        lines = [process.stdout.readline()]
        while lines[-1] not in {"}\n", ""}:
            lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()[-3000:]
        said = json.loads("".join(lines))
        assert (said["models"], said["http"]) == (["mine"], url)
        with urllib.request.urlopen(f"{url}/v2/models/mine/ready") as reply:
            assert reply.status == 200
        repository = Path(said["repository"])
        assert (repository / "mine" / "1" / "model.onnx").is_file()
        started = children(process.pid)
        assert started
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Started HTTPService" in log
        assert "\0" not in log
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
        assert not repository.exists(), "a bundle's package goes with the server"
    finally:
        process.kill()
        process.wait()


def test_a_repository_of_any_origin_is_served_where_it_lies(repository, backends, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(repository / "encoder", models / "encoder")
    process, url = start(models, backends, "--tritonserver", which())
    try:
        while process.stdout.readline() not in {"}\n", ""}:
            pass
        with urllib.request.urlopen(f"{url}/v2/models/encoder/ready") as reply:
            assert reply.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert [path.name for path in models.iterdir()] == ["encoder"]


def test_a_server_that_cannot_load_a_model_is_an_error_with_its_log(repository, backends, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(repository / "encoder", models / "encoder")
    (models / "encoder" / "1" / "model.onnx").write_bytes(b"no graph")
    process, _ = start(models, backends)
    out, log = process.communicate(timeout=90)
    assert (process.returncode, out) == (1, "")
    assert "error: the server ended with code" in log
    assert "encoder" in log


def which():
    found = environment()
    return str(shutil.which("tritonserver", path=found["PATH"]))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{bundle}"], 4, "there is no program tritonserver on PATH"),
        (["{bundle}", "--tritonserver", "{bundle}/none"], 4, "is no program that can be started"),
        (["{bundle}", "--image", "triton"], 4, "no docker or podman to run triton"),
    ],
)
def test_without_a_server_it_says_how_to_get_one(
    bundles, capsys, monkeypatch, tmp_path, arguments, code, said
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TRITON_IMAGE", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["serve", *(word.format(bundle=bundles["digits"]) for word in arguments)])
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert said in error
    assert "hint: " in error
