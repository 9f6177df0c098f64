"""A member with tables reads and speaks the ids that the tables say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import Combination, Ensemble, GraphError, Leaf, Translation, fuse
from tests.graphs.models import linear, log_softmax, session, write

# The logits after an id are a row of a table.
TOKENS = """
<ir_version: 10, opset_import: ["" : 20]>
net (int64[batch, n] ids) => (float[batch, n, SIZE] logits)
{ logits = Gather (table, ids) }
"""
HALF = Combination("linear", "logits", (0.5, 0.5), "logits")


def speaker(path, size, seed=0):
    table = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    return write(path, TOKENS.replace("SIZE", str(size)), table=table), table


def fused(folder, size, reads, speaks):
    """An ensemble of a member with ``size`` ids and one with five, which is translated."""
    first, table = speaker(folder / "first.onnx", size)
    second, own = speaker(folder / "second.onnx", 5, seed=1)
    said = Translation("ids", "logits", tuple(reads), tuple(speaks))
    tree = Ensemble("root", (Leaf("a", first), Leaf("b", second, translation=said)), HALF)
    fuse(tree, folder / "m.onnx")
    return table, own


@settings(max_examples=25)
@given(st.data())
def test_both_tables_are_applied(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("translating")
    size = data.draw(st.integers(1, 7))
    reads = data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    speaks = data.draw(st.lists(st.integers(-1, 4), min_size=size, max_size=size))
    table, own = fused(folder, size, reads, speaks)
    ids = np.arange(size)[None]
    (found,) = session(folder / "m.onnx").run(None, {"ids": ids})
    mapped = np.where(np.array(speaks) >= 0, own[reads][:, np.maximum(speaks, 0)], -np.inf)
    wanted = linear(np.stack([table, mapped]).astype(np.float64), np.array([0.5, 0.5]))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-5)
    model = onnx.load(folder / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    silent = [node.op_type for node in model.graph.node].count("Where")
    assert silent == (-1 in speaks)  # no more nodes than are needed


def test_a_translated_member_alone_is_normalised_over_what_it_shares(tmp_path):
    file, own = speaker(tmp_path / "own.onnx", 5)
    leaf = Leaf("b", file, translation=Translation("ids", "logits", (3, 0), (3, 0)))
    fuse(Ensemble("root", (leaf,), Combination("linear", "logits", (1.0,), "logits")),
         tmp_path / "m.onnx")  # fmt: skip
    (found,) = session(tmp_path / "m.onnx").run(None, {"ids": np.array([[0, 1]])})
    np.testing.assert_allclose(found[0], log_softmax(own[[3, 0]][:, [3, 0]]), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ids": "tokens"}, "member 'b' has no input 'tokens' to translate"),
        ({"logits": "scores"}, "member 'b' has no output 'scores' to translate"),
        ({"speaks": (5,)}, "member 'b' is to speak with its id 5, but its output 'logits' has 5"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, options, text):
    first, _ = speaker(tmp_path / "first.onnx", 1)
    second, _ = speaker(tmp_path / "second.onnx", 5)
    said = Translation(
        **{"ids": "ids", "logits": "logits", "reads": (0,), "speaks": (0,), **options}
    )
    with pytest.raises(GraphError) as caught:
        fuse(
            Ensemble("root", (Leaf("a", first), Leaf("b", second, translation=said)), HALF),
            tmp_path / "m.onnx",
        )
    assert caught.value.message == text
