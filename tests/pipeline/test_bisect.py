"""The proof after each pass names the first that breaks the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

import graphs
from graphs.passes import PassReport
from tests.workshop import RECIPE, write_recipe
from toolkit.cli.main import main
from toolkit.pipeline import bisect_passes
from toolkit.recipe import load_recipe


@dataclass(frozen=True)
class BreaksAWeight:
    """Scales one weight by 1.01."""

    name: ClassVar[str] = "deduplicate_subgraphs"

    def requires(self, model):
        pass

    def apply(self, model):
        value = next(v for k, v in model.graph.initializers.items() if k.endswith("inner.0.weight"))
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)
        return PassReport(self.name, (value.name,))

    def ensures(self, model):
        pass


PASSES = """
passes:
  - {name: deduplicate_initializers}
  - {name: deduplicate_subgraphs}
  - {name: remove_unused_nodes}
"""


def test_the_first_pass_that_breaks_the_graph_is_named(shop, monkeypatch):
    monkeypatch.setitem(graphs.PASSES, "deduplicate_subgraphs", BreaksAWeight)
    recipe = load_recipe(write_recipe(shop, RECIPE + PASSES), allow_code=True)
    found = bisect_passes(recipe, shop)
    assert [(stage.name, stage.verdict) for stage in found.stages] == [
        ("fuse", "pass"),
        ("deduplicate_initializers", "pass"),
        ("deduplicate_subgraphs", "fail"),
        ("remove_unused_nodes", "not run"),
    ]
    assert found.culprit.name == "deduplicate_subgraphs"
    assert found.culprit.sites == 1
    assert found.culprit.detail.startswith("logits of onnxruntime cpu")


def test_the_command_writes_nothing_and_exits_3(shop, monkeypatch, capsys):
    monkeypatch.setitem(graphs.PASSES, "deduplicate_subgraphs", BreaksAWeight)
    path = write_recipe(shop, RECIPE + PASSES)
    before = sorted(shop.parent.rglob("*"))
    with pytest.raises(SystemExit) as done:
        main(["export", str(path), "--allow-code", "--bisect-passes"])
    assert done.value.code == 3
    shown = capsys.readouterr().out
    assert "deduplicate_subgraphs is the first pass after which the proof fails" in shown
    assert [path for path in sorted(shop.parent.rglob("*")) if path not in before] == []


def test_healthy_passes_have_no_culprit(shop):
    recipe = load_recipe(write_recipe(shop), allow_code=True)
    found = bisect_passes(recipe, shop)
    assert found.culprit is None
    assert [stage.verdict for stage in found.stages] == ["pass"]
