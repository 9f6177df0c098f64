"""A model with one block in float64 at a time answers as the model in float64, to the last bit."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from toolkit.runtime import ChangedSource, NarrowedSource, TorchRunner, pytorch, widening
from toolkit.runtime.widening import widen_by_blocks
from toolkit.sources import HuggingFaceSource

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 50}
HEADS = {"num_attention_heads": 4}
CASES = {
    "experts": transformers.MixtralConfig(
        **SMALL, **HEADS, num_key_value_heads=2, num_local_experts=4
    ),
    "shared layers": transformers.AlbertConfig(**SMALL, **HEADS, embedding_size=16),
    "encoder and decoder": transformers.T5Config(
        d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=50
    ),
    "lists of parts": transformers.XLMConfig(emb_dim=32, n_layers=2, n_heads=4, vocab_size=50),
}


def made(config):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


def answer(model):
    given = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.inference_mode(), pytorch._Float64Mode():
        return model(input_ids=IDS, **given)[0]


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_the_whole_model_in_float64(name):
    model = made(CASES[name])
    whole = answer(deepcopy(model).double())
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    widen_by_blocks(model)
    resting = sum(p.dtype is torch.float32 for p in model.parameters())
    assert resting > len(before) // 2
    for _ in range(2):  # the second time from what the first left
        found = answer(model)
        assert found.dtype is torch.float64
        assert torch.equal(found, whole)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.double(), before[key].double()), key
    # One block is in float64 beside what is so for good, and no more.
    assert sum(p.dtype is torch.float32 for p in model.parameters()) < resting


class Tied(nn.Module):
    """The second layer has the weights of the first; the last is the table's, turned."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 50)])
        self.layers[1].weight = self.layers[0].weight
        self.layers[2].weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_what_blocks_share_is_widened_for_good():
    torch.manual_seed(0)
    model = Tied()
    whole = deepcopy(model).double()(IDS)
    widen_by_blocks(model)
    assert model.layers[1].weight is model.layers[0].weight
    assert model.layers[0].weight.dtype is model.table.weight.dtype is torch.float64
    assert model.layers[0].bias.dtype is torch.float32
    assert torch.equal(model(IDS), whole)


def test_without_blocks_everything_is_widened():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    widen_by_blocks(model)
    tensors = [*model.parameters(), *model.buffers()]
    assert all(t.dtype is torch.float64 for t in tensors if t.is_floating_point())


def halved(module):
    for parameter in module.parameters():
        parameter.data.mul_(0.5)


@pytest.mark.parametrize(
    "around",
    [lambda s: s, lambda s: NarrowedSource(s, "float16"), lambda s: ChangedSource(s, halved)],
    ids=["plain", "narrowed", "changed"],
)
def test_the_reference_of_a_large_model_is_the_same(tmp_path, monkeypatch, around):
    config = CASES["experts"]
    torch.manual_seed(0)
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    source = around(HuggingFaceSource("m", tmp_path))
    feeds = {"input_ids": IDS.numpy(), "attention_mask": np.ones((2, 5), np.int64)}
    with TorchRunner(source, "float64", "") as runner:
        whole = runner(feeds)
    assert not widening.is_large(source)
    monkeypatch.setattr(widening, "_LARGE", 1)
    assert widening.is_large(source)
    with TorchRunner(source, "float64", "") as runner:
        found = runner(feeds)
        assert any(p.dtype is torch.float32 for p in runner._module.parameters())
    assert sorted(found) == sorted(whole)
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array, name)
