"""Mixtures beside mergekit-moe's, read by transformers: every weight equal, routers to rounding."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from tests.merge.dense import dense, fine_tune, load
from toolkit.merge import MergeOptions, merge

pytest.importorskip("transformers")

# Made by the merging benchmarks; see benchmarks/merge_peer.py.
PYTHON = Path(__file__).parents[2] / "build" / "venvs" / "mergekit" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="mergekit is not installed in build/venvs/mergekit"
)

# mergekit reads prompts in bfloat16; in float32 its formula shows to more than two digits. And
# transformers' class for Qwen2 makes a BPE of any tokenizer.json, which this one is none of.
SCRIPT = """
import sys, torch, transformers, yaml
from mergekit.moe import router
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build

class InFloat32:
    @staticmethod
    def from_pretrained(path, torch_dtype, **rest):
        return real.from_pretrained(path, torch_dtype=torch.float32, **rest)

real, router.AutoModelForCausalLM = router.AutoModelForCausalLM, InFloat32
transformers.AutoTokenizer.from_pretrained = transformers.PreTrainedTokenizerFast.from_pretrained
for folder in sys.argv[1:]:
    with open(folder + "/moe.yml") as file:
        text = file.read().replace("source_model: ", "source_model: " + folder + "/")
    text = text.replace("base_model: ", "base_model: " + folder + "/")
    config = MoEMergeConfig.model_validate(yaml.safe_load(text))
    build(config, folder + "/theirs", MergeOptions(quiet=True), device="cpu")
"""
SHARED = [
    {"source_model": "base", "positive_prompts": ["x story", "verse x"], "residual_scale": 0.25}
]
CASES = {
    "mixtral": ("llama", {"gate_mode": "hidden"}),
    "mixtral of mistral": ("mistral", {"gate_mode": "cheap_embed", "experts_per_token": 1}),
    "mixtral in bfloat16": ("llama", {"gate_mode": "random", "dtype": "bfloat16"}),
    "qwen2": ("qwen2", {"gate_mode": "hidden_avg", "shared_experts": SHARED}),
    "qwen2 of llama": (
        "llama", {"gate_mode": "hidden", "shared_experts": SHARED, "architecture": "qwen"},
    ),
    "qwen3": ("qwen3", {"gate_mode": "hidden"}),
}  # fmt: skip


def experts(mode):
    """Prompts of one length where mergekit's mean would count the padding of shorter ones."""
    second = "rhyme verse" if mode == "hidden_avg" else "rhyme verse story"
    return [
        {"source_model": "a", "positive_prompts": ["sum product", second]},
        {"source_model": "b", "positive_prompts": ["loop class"], "negative_prompts": ["x sum"]},
        {"source_model": "b", "positive_prompts": ["proof x"], "residual_scale": 0.5},
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All cases, by mergekit in one process and by us."""
    root = tmp_path_factory.mktemp("peer")
    for case, (kind, config) in CASES.items():
        folder = root / case.replace(" ", "_")
        dense(folder / "base", kind)
        for seed, name in enumerate("ab"):
            fine_tune(folder / "base", folder / name, seed)
        models = {"base_model": "base", "experts": experts(config["gate_mode"])}
        text = yaml.safe_dump(models | config)
        (folder / "moe.yml").write_text(text)
        (folder / "ours.yml").write_text(text + "gate_state: layer_input\n")
        merge(folder / "ours.yml", folder / "ours", MergeOptions())
    subprocess.run(
        [PYTHON, "-c", SCRIPT, *(str(root / case.replace(" ", "_")) for case in CASES)],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return root


@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_mergekits(made, case):
    folder = made / case.replace(" ", "_")
    ours, theirs = (load(folder / out, dtype=None) for out in ("ours", "theirs"))
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name, tensor in mine.items():
        assert tensor.dtype == other[name].dtype
        if not name.endswith("gate.weight"):
            assert torch.equal(tensor, other[name]), name
        elif CASES[case][1]["gate_mode"] != "random":
            torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)
    routers = {name: t.shape for name, t in mine.items() if name.endswith("mlp.gate.weight")}
    assert len(routers) == 3


@pytest.mark.parametrize("case", CASES)
def test_the_configurations_say_the_same(made, case):
    folder = made / case.replace(" ", "_")
    mine, other = (load(folder / out, dtype=None).config.to_dict() for out in ("ours", "theirs"))
    # Ours keeps the base's window, which mergekit drops, and leaves caching on.
    known = {"_name_or_path", "sliding_window", "transformers_version", "max_window_layers"}
    differ = {k for k in mine.keys() & other.keys() if mine[k] != other[k]} - known
    assert differ == set()
