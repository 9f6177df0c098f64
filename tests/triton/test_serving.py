"""What is packaged loads in a real Triton and answers as ONNX Runtime does, bit for bit."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from tests.triton.server import PYTHON, index
from toolkit.bundle import Manifest
from toolkit.cli import main
from toolkit.feeds import make_feeds
from toolkit.package import check_repository

pytestmark = pytest.mark.triton

NAMES = ["digits", "encoder", "experts", "plain_decoder"]
STEPS = ("", ".attention", ".cnn", ".combine", ".mlp")
TEXT_STEPS = ("answer", "text", "tokenizer")
MODELS = {
    *NAMES, "waiting", "decoder", "slow", "speaker", "embedder", "embedder_text",
    "embedder_tokenizer", *(f"digits_unfused{step}" for step in STEPS),
    *(f"{name}_{step}" for name in ("encoder", "slow", "speaker") for step in TEXT_STEPS),
}  # fmt: skip


def feeds_of(bundle, which):
    """Inputs at the smallest, usual or largest size."""
    manifest = Manifest.read(bundle / "manifest.json")
    dims = {name: span[which] for name, span in manifest.shapes.items()}
    return make_feeds([t.spec() for t in manifest.inputs], dims, np.random.default_rng(which))


def run_locally(bundle, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def ask(server, repository, *arguments, http=False):
    """Run the client that lies beside the models."""
    port = server.http if http else server.grpc
    command = [PYTHON, repository / "client.py", *arguments, "--url", f"localhost:{port}"]
    if http:
        command.append("--http")
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_model_is_ready_in_its_newest_version(server):
    found = index(server)
    assert set(found.values()) == {"READY"}
    assert found.keys() == {("digits", "2")} | {(name, "1") for name in MODELS - {"digits"}}


def test_the_validator_has_nothing_to_say(repository):
    report = check_repository(repository)
    assert report.findings == ()
    assert set(report.models) == MODELS
    python = sorted(name for name in MODELS if name.endswith(("_answer", "_tokenizer")))
    assert report.unchecked == tuple(
        f"{name}: version 1, which the python backend reads" for name in python
    )


@pytest.mark.parametrize("which", [0, 2], ids=["smallest", "largest"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_onnx_runtime(server, repository, bundles, tmp_path, name, which):
    bundle = bundles[name.removeprefix("plain_")]
    feeds = feeds_of(bundle, which)
    np.savez(tmp_path / "inputs.npz", **feeds)
    expected = run_locally(bundle, feeds)
    for http in (False, True):
        answer = tmp_path / f"{http}.npz"
        files = ["--inputs", tmp_path / "inputs.npz", "--outputs", answer]
        ask(server, repository, name, *files, http=http)
        with np.load(answer) as found:
            assert set(found) == set(expected)
            for output, array in expected.items():
                np.testing.assert_array_equal(found[output], array, strict=True)


def test_the_client_needs_no_inputs_to_show_an_answer(server, repository):
    assert "logits float32[1, 3]" in ask(server, repository, "encoder")


def test_the_client_decodes_with_caches_as_generate_does(server, repository, bundles, capsys):
    ids, count = "5,17,9", 9
    command = ["generate", str(bundles["experts"]), "--ids", ids, "--max-new-tokens", str(count)]
    with pytest.raises(SystemExit):
        main([*command, "--json"])
    expected = json.loads(capsys.readouterr().out)[0]["tokens"]
    words = ["experts", "--generate", ids, "--tokens", count]
    for http in (False, True):
        found = [int(word) for word in ask(server, repository, *words, http=http).split(",")]
        assert len(found) == count
        assert found[: len(expected)] == expected
    assert len(expected) > 2


def statistics(server, name):
    _, content = server.get(f"v2/models/{name}/stats")
    (stats,) = json.loads(content)["model_stats"]
    return stats["inference_count"], stats["execution_count"]


def request(server, name, input_name, array):
    tensor = {
        "name": input_name,
        "shape": list(array.shape),
        "datatype": "FP32",
        "data": array.ravel().tolist(),
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    status, content = server.get(f"v2/models/{name}/infer", body)
    assert status == 200, content
    return {o["name"]: np.reshape(o["data"], o["shape"]) for o in json.loads(content)["outputs"]}


def test_requests_that_come_together_share_a_run_and_get_their_own_answers(server, bundles):
    (image,) = feeds_of(bundles["digits"], 2).values()
    (name,) = feeds_of(bundles["digits"], 2)
    rows = np.split(image[:8], 8)
    before = statistics(server, "waiting")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: request(server, "waiting", name, row), rows))
    inferences, executions = np.subtract(statistics(server, "waiting"), before)
    assert inferences == 8
    assert executions < 8
    expected = run_locally(bundles["digits"], {name: image[:8]})
    for output, array in expected.items():
        given = np.concatenate([one[output] for one in found])
        np.testing.assert_allclose(given, array, rtol=1e-5, atol=1e-6)


def test_a_batch_above_the_largest_is_refused_with_the_limit(server, bundles):
    feeds = feeds_of(bundles["encoder"], 2)
    tensors = [
        {"name": n, "shape": [5, 12], "datatype": "INT64", "data": np.ones(60, int).tolist()}
        for n in feeds
    ]
    status, content = server.get(
        "v2/models/encoder/infer", json.dumps({"inputs": tensors}).encode()
    )
    assert status == 400
    assert b"batch-size must be <= 4" in content
