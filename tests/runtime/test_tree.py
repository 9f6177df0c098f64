"""Traces of an ensemble's members show what the runners of the same ensemble give."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from toolkit.runtime import ProgramTrace, TracedEnsemble, TracedLeaf, Translation, TreeTrace
from toolkit.runtime.ensemble import interpolate

SAID = Translation("ids", "logits", reads=(2, 0, 1), speaks=(1, -1, 2))


class Speaker(nn.Module):
    """Logits after the last id, and a state that remembers all of them."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(3, 3, generator=generator))

    def forward(self, ids, past):
        return self.table[ids[:, -1]], torch.cat([past, ids.float()], 1)


def traced(name, seed, **options):
    example = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1))
    program = torch.export.export(Speaker(seed).eval(), example)
    inputs = ("ids", "past")
    trace = ProgramTrace(program, inputs, ("logits", "present"))
    rename, caches = {"past": f"past.{name}"}, {"present": f"present.{name}"}
    return TracedLeaf(name, trace, inputs, rename, caches, **options)


def test_caches_have_their_names_and_a_translated_member_its_table():
    leaves = (traced("a", 0), traced("b", 1, translation=SAID))
    root = TracedEnsemble(
        "root", leaves, (0.25, 0.75), "linear", "logits", "logits", ("ids", "past.a", "past.b")
    )
    tree = TreeTrace(root)
    feeds = {
        "ids": np.array([[1, 2]]),
        "past.a": np.array([[7.0]], np.float32),
        "past.b": np.array([[8.0]], np.float32),
    }
    wanted = ["logits", "present.a", "present.b", "b/vocabulary/logits", "b/logits"]
    assert set(wanted) <= set(tree.names)
    found = tree(feeds, wanted)
    assert list(found) == wanted
    assert found["present.a"].tolist() == [[7, 1, 2]]
    assert found["present.b"].tolist() == [[8, 0, 1]]  # as the member reads them
    first, own = (Speaker(seed).table.detach().double() for seed in (0, 1))
    spoken = torch.tensor([own[1, 1], -torch.inf, own[1, 2]])[None]
    np.testing.assert_allclose(found["b/logits"], own[1:2].numpy())
    np.testing.assert_allclose(found["b/vocabulary/logits"], spoken.numpy())
    mixture = interpolate([first[2:3], spoken], (0.25, 0.75), "linear", "logits")
    np.testing.assert_allclose(found["logits"], mixture.numpy())


def test_a_cache_alone_can_be_asked_for():
    tree = TreeTrace(
        TracedEnsemble(
            "root",
            (traced("a", 0), traced("b", 1, translation=SAID)),
            (0.5, 0.5),
            "linear",
            "logits",
            "logits",
            ("ids", "past.a", "past.b"),
        )
    )
    feeds = {"ids": np.array([[0, 0]]), "past.a": np.zeros((1, 1), np.float32)}
    feeds["past.b"] = feeds["past.a"]
    assert list(tree(feeds, ["present.b"])) == ["present.b"]
