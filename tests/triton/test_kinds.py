"""Texts, members apart, caches on the server, labels: each answered by a real server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tests.triton.models import LABELS
from tests.triton.test_serving import ask, feeds_of, run_locally, statistics
from toolkit.cli import main
from toolkit.errors import PackageError
from toolkit.pipeline import package_apart
from toolkit.sources import HuggingFaceSource

pytestmark = pytest.mark.triton

TEXTS = ["w3 w9 w50", "w7", "w11 w12 w13 w14 w15 w16 w17 w18"]
PROMPTS = ["5,17,9", "40", "8,8,60,2"]
STEPS = 18


def post(server, model, tensors, outputs=()):
    """Outputs by name; strings as they are."""
    inputs = [
        {"name": name, "shape": list(np.shape(values)), "datatype": dtype, "data": values}
        for name, (dtype, values) in tensors.items()
    ]
    body = json.dumps({"inputs": inputs, **({"outputs": outputs} if outputs else {})}).encode()
    status, content = server.get(f"v2/models/{model}/infer", body)
    assert status == 200, content
    return {o["name"]: np.reshape(o["data"], o["shape"]) for o in json.loads(content)["outputs"]}


def classified(bundle, texts):
    """What the ensemble should say: tokens padded to the longest, the graph, a softmax."""
    encoded = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode_batch(texts)
    shape = (len(texts), max(len(one.ids) for one in encoded))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(encoded):
        ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    logits = run_locally(bundle, feeds)["logits"].astype(np.float64)
    return torch.from_numpy(logits).softmax(-1).numpy().astype(np.float32)


def test_a_text_goes_in_and_a_label_comes_out(server, repository, bundles):
    chances = classified(bundles["encoder"], TEXTS)
    found = post(server, "encoder_text", {"TEXT": ("BYTES", [[text] for text in TEXTS])})
    assert found["LABEL"].ravel().tolist() == [LABELS[row.argmax()] for row in chances]
    np.testing.assert_allclose(found["PROBABILITIES"], chances, rtol=2e-7)
    np.testing.assert_array_equal(found["SCORE"].ravel(), found["PROBABILITIES"].max(-1))
    for http in (False, True):
        said = ask(server, repository, "encoder_text", "--text", TEXTS[0], http=http)
        assert LABELS[classified(bundles["encoder"], TEXTS[:1])[0].argmax()] in said


def test_texts_of_different_lengths_share_a_run_of_the_model(server, bundles):
    texts = [*TEXTS, "w90 w3"]
    before = statistics(server, "slow")
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda text: post(server, "slow_text", {"TEXT": ("BYTES", [[text]])}), texts)
        )
    inferences, executions = np.subtract(statistics(server, "slow"), before)
    assert (inferences, executions < 4) == (4, True)
    for text, one in zip(texts, found, strict=True):
        chances = classified(bundles["encoder"], [text])
        np.testing.assert_allclose(one["PROBABILITIES"], chances, rtol=1e-5)


def test_triton_itself_names_the_likeliest_labels(server, bundles):
    feeds = feeds_of(bundles["encoder"], 0)
    tensors = {name: ("INT64", array.tolist()) for name, array in feeds.items()}
    wanted = [{"name": "logits", "parameters": {"classification": 2}}]
    ((first, _),) = post(server, "encoder", tensors, wanted)["logits"].tolist()
    logits = run_locally(bundles["encoder"], feeds)["logits"][0]
    _, index, label = first.split(":")
    assert (int(index), label) == (logits.argmax(), LABELS[logits.argmax()])


def test_members_apart_answer_as_the_fused_graph_does(server, bundles):
    ((name, images),) = feeds_of(bundles["digits"], 2).items()
    tensors = {name: ("FP32", images[:5].tolist())}
    found = post(server, "digits_unfused", tensors)
    assert set(found) == {"logits"}
    fused = post(server, "digits", tensors)["logits"]
    np.testing.assert_allclose(found["logits"], fused, rtol=1e-6, atol=1e-6)
    assert statistics(server, "digits_unfused.combine")[0] > 0


def test_one_model_cannot_be_taken_apart(bundles, tmp_path):
    with pytest.raises(PackageError, match="there is nothing to take apart"):
        package_apart(bundles["encoder"], tmp_path / "models")


def generated(bundle, ids, capsys):
    words = ["generate", str(bundle), "--ids", ids, "--max-new-tokens", str(STEPS), "--json"]
    with pytest.raises(SystemExit):
        main(words)
    return json.loads(capsys.readouterr().out)[0]["tokens"]


def pytorch(folder, ids):
    model = HuggingFaceSource("decoder", folder).load()
    made = [int(word) for word in ids.split(",")]
    start = len(made)
    for _ in range(STEPS):
        tokens = torch.tensor([made])
        (logits,) = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        made.append(int(logits[0, -1].argmax()))
    return made[start:]


@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
@pytest.mark.parametrize("model", ["decoder", "plain_decoder"])
def test_a_decoder_goes_on_as_pytorch_does_wherever_its_caches_are(
    server, repository, bundles, capsys, model, http
):
    """Three sequences at once, so that none has another's caches."""
    words = [[model, "--generate", ids, "--tokens", STEPS] for ids in PROMPTS]
    with ThreadPoolExecutor(len(words)) as pool:
        found = list(pool.map(lambda each: ask(server, repository, *each, http=http), words))
    for ids, said in zip(PROMPTS, found, strict=True):
        tokens = [int(word) for word in said.split(",")]
        assert tokens == generated(bundles["decoder"], ids, capsys)
        assert tokens == pytorch(bundles["decoder"].parent / "llama", ids)
