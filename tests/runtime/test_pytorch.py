"""PyTorch as a runner: the precision asked for is the precision computed in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.artifacts import TensorSpec
from toolkit.runtime import TorchRunner


class Norm(nn.Module):
    """A root-mean-square norm that insists on float32, as Llama's does."""

    def forward(self, x):
        kept = x.dtype
        lifted = x.to(torch.float32)
        lifted = lifted * torch.rsqrt((lifted.float() ** 2).mean(-1, keepdim=True))
        return (lifted.to(kept),)


class Source:
    name = "norm"
    inputs = (TensorSpec("x", "float32", ("batch", 3)),)
    outputs = ("y",)

    def load(self, dtype):
        return Norm()


def test_float64_reaches_through_explicit_float32():
    x = np.array([[1.0, 1e-9, 3.0]])
    exact = x / np.sqrt((x**2).mean(-1, keepdims=True))
    with TorchRunner(Source(), "float64") as runner:
        found = runner({"x": x})["y"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, rtol=1e-15)


def test_float32_stays_float32():
    with TorchRunner(Source()) as runner:
        assert runner({"x": np.ones((2, 3), np.float64)})["y"].dtype == np.float32


def test_use_outside_the_with_block_is_a_mistake():
    with pytest.raises(RuntimeError, match="outside its with block"):
        TorchRunner(Source())({"x": np.ones((1, 3))})
