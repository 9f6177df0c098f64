"""Sparse layers while a model is exported: our operator computes what transformers' eager does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.moe_models import CAUSAL, MORE, VOCABULARY, tiny, write_tiny
from toolkit.errors import ExportError
from toolkit.export.experts import expert_operators
from toolkit.sources import HuggingFaceSource


class Counting(TorchDispatchMode):
    """Counts calls of our operator."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is torch.ops.toolkit.expert_linear.default
        return func(*args, **(kwargs or {}))


def ids_of(batch, sequence):
    generator = torch.Generator().manual_seed(batch * 1000 + sequence)
    return torch.randint(3, VOCABULARY, (batch, sequence), generator=generator)


def logits(model, ids):
    more = {"decoder_input_ids": ids[:, :3]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits


@pytest.mark.parametrize("name", [*CAUSAL, *MORE, "switch_transformers"])
def test_the_operator_gives_what_eager_experts_give(name):
    model = tiny(name)
    for ids in (ids_of(1, 1), ids_of(2, 8), ids_of(3, 5)):
        wanted = logits(model, ids)
        with expert_operators(model), Counting() as counting:
            found = logits(model, ids)
        assert counting.calls >= 2
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", ["mixtral", "jetmoe", "switch_transformers", "llama4_text"])
def test_a_model_is_as_before_after_its_export(name):
    model = tiny(name)
    kinds = [type(module) for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), expert_operators(model):
        raise RuntimeError("stop")
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(tensor, weights[n]) for n, tensor in model.state_dict().items())
    with Counting() as counting:
        logits(model, ids_of(1, 4))
    assert counting.calls == 0


def test_weights_of_separate_experts_are_held_once():
    model = tiny("switch_transformers")
    with expert_operators(model):
        experts = [m for m in model.modules() if type(m).__name__ == "_SwitchExperts"]
        stacked = {e.wi.untyped_storage().data_ptr() for e in experts}
    for name, parameter in model.named_parameters():
        if "expert_" in name and ".wi." in name:
            assert parameter.untyped_storage().data_ptr() in stacked


def test_the_reference_runs_transformers_own_experts(tmp_path):
    model = HuggingFaceSource("m", write_tiny(tmp_path / "m", "mixtral")).load()
    assert model.model.config._experts_implementation == "eager"


def test_a_model_inside_a_module_of_ones_own_is_found():
    model = nn.ModuleDict({"inner": nn.Sequential(tiny("olmoe"))})
    with expert_operators(model), Counting() as counting:
        logits(model["inner"][0], ids_of(2, 3))
    assert counting.calls == 4


def test_nllb_is_refused_with_the_reason():
    model = tiny("nllb_moe")
    wanted = "NllbMoeExperts cannot be exported: transformers sends its tokens to experts 0 and 1"
    with pytest.raises(ExportError, match=wanted) as found, expert_operators(model):
        pass
    assert "docs/moe.md" in found.value.hint


def test_what_is_said_of_nllb_is_so():
    """When this fails, transformers has mended it, and the refusal can go."""
    model, ids = tiny("nllb_moe"), ids_of(2, 7)
    before = logits(model, ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "expert_2" in name or "expert_3" in name:
                parameter.zero_()
    assert torch.equal(logits(model, ids), before)


def test_experts_of_an_unknown_kind_are_refused_by_name():
    class StrangeExperts(nn.Module):
        """What a new architecture of transformers might bring."""

    StrangeExperts.__module__ = "transformers.models.strange.modeling_strange"
    model = tiny("mixtral")
    model.model.layers[1].mlp.experts = StrangeExperts()
    with pytest.raises(ExportError, match="StrangeExperts cannot be exported: transformers does"):
        expert_operators(model).__enter__()
