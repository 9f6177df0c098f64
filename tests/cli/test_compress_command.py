"""``toolkit compress``, there and back."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file


def test_there_and_back(run, shop):
    weight = torch.randn(64, 64) * (torch.rand(64, 64) < 0.1)
    save_file({"w": weight}, shop / "a.safetensors")
    found = run("compress", "a.safetensors", "small.safetensors")
    assert found.code == 0, found.err
    assert "1 tensors changed" in found.out
    found = run("compress", "--restore", "small.safetensors", "b.safetensors", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["before"] < said["after"]
    assert (shop / "a.safetensors").read_bytes() == (shop / "b.safetensors").read_bytes()


def test_what_is_compressed_is_not_taken_for_a_model(run, shop):
    save_file({"w": torch.zeros(64, 64)}, shop / "a.safetensors")
    assert run("compress", "a.safetensors", "small.safetensors").code == 0
    found = run("inspect", "small.safetensors")
    assert found.code == 1
    assert "zeros left out" in found.err
    assert "toolkit compress --restore" in found.err
