"""What the benchmark on a GPU calls right and wrong, shown with the kernels' code for the host."""

from __future__ import annotations

import pytest

from benchmarks.gpu import topk_gating
from benchmarks.gpu.correctness import check
from tests.plugins import host


class Host:
    """The kernels on the host; ``spoil`` changes what they give."""

    name = "host"

    def __init__(self, lib, spoil=lambda weights, ids: (weights, ids)):
        self.lib, self.spoil = lib, spoil

    def gating(self, g, logits, bias=None):
        return self.spoil(*host.gating(self.lib, g, logits, bias))

    def dispatch(self, ids, experts):
        return host.dispatch(self.lib, ids, experts)


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    return host.library(tmp_path_factory.mktemp("host"))


def test_right_kernels_have_nothing_wrong(lib):
    verdict = check(Host(lib), "cpu", most=1, seed=0)
    assert verdict.wrong == []
    assert verdict.ulps <= 1
    assert verdict.cases > 400


def test_wrong_ids_and_weights_that_are_off_are_told(lib, monkeypatch):
    gatings = list(topk_gating_cases())[:2]
    monkeypatch.setattr("benchmarks.gpu.correctness.gatings", lambda: iter(gatings))
    swapped = check(Host(lib, lambda w, ids: (w, ids.flip(1) + 1)), "cpu", most=1, seed=0)
    assert any(line.startswith("ids of host: Gating(num_experts=") for line in swapped.wrong)
    off = check(Host(lib, lambda w, ids: (w * 1.000001, ids)), "cpu", most=1, seed=0)
    assert off.ulps > 1


def topk_gating_cases():
    from benchmarks.gpu.correctness import gatings

    return gatings()


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_without_a_gpu_the_benchmark_says_so(capsys):
    assert topk_gating.main([]) == 4
    assert "this machine lacks a CUDA device" in capsys.readouterr().err
