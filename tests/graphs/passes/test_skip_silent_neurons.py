"""skip_silent_neurons: the same numbers for any activation, and rows that are not read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import GraphError, SkipSilentNeurons, cut_silent, rewrite, silent_layers
from tests.graphs.models import check_golden, run, session, text_of, write

F, H = 24, 6
RANDOM = np.random.default_rng(0)
DOWN = RANDOM.normal(size=(F, H)).astype(np.float32)
BIAS = RANDOM.normal(size=H).astype(np.float32)
HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

# What stands between x, which is what a layer says before its ReLU, and the down projection.
FORMS = {
    "relu": "a = Relu (x)",
    "squared": "r = Relu (x) a = Mul (r, r)",
    "power": "two = Constant <value_float = 2.0> () r = Relu (x) a = Pow (r, two)",
    "gated": "r = Relu (x) a = Mul (r, other)",
    "clipped": "z = Constant <value_float = 0.0> () s = Constant <value_float = 6.0> () "
    "a = Clip (x, z, s)",
}
PRODUCTS = {
    "matmul": ("y = MatMul (a, down)", {"down": DOWN}),
    "gemm": ("y = Gemm (a, down, bias)", {"down": DOWN, "bias": BIAS}),
    "turned": ("y = Gemm <transB = 1> (a, down, bias)",
               {"down": np.ascontiguousarray(DOWN.T), "bias": BIAS}),
    "transposed": ("t = Transpose <perm = [1, 0]> (down) y = MatMul (a, t)",
                   {"down": np.ascontiguousarray(DOWN.T)}),
}  # fmt: skip


def model(folder, form="relu", product="matmul", lead="tokens", weights=None):
    """A graph of an activation and a product; ``other`` is read by the gated one alone."""
    line, stored = PRODUCTS[product]
    stored = stored if weights is None else {"down": weights}
    kind = f"float[{lead}, {F}]"
    extra = f", {kind} other" if form == "gated" else ""
    text = f"{HEAD}net ({kind} x{extra}) => (float[{lead}, {H}] y) {{ {FORMS[form]} {line} }}"
    path = write(folder / "plain.onnx", text, **stored)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    return path


def skipping(path, limits=(1.0,) * 3):
    out = path.with_name("skipping.onnx")
    (report,) = rewrite(path, [SkipSilentNeurons(limits)], out)
    return out, report


def feeds(shape, silent, form="relu", seed=0):
    """Rows in which the neurons of ``silent`` say nothing."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(*shape, F)).astype(np.float32)
    x[..., list(silent)] = -np.abs(x[..., list(silent)])
    other = random.normal(size=x.shape).astype(np.float32)
    return {"x": x, **({"other": other} if form == "gated" else {})}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_form_gives_the_same_numbers(tmp_path, form, product):
    plain = model(tmp_path, form, product)
    path, report = skipping(plain)
    assert len(report.sites) == 1
    assert report.near_misses == ()
    for tokens in (1, 2, 3, 4, 9):
        given = feeds((tokens,), range(0, F, 2), form, tokens)
        np.testing.assert_allclose(run(path, **given), run(plain, **given), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    plain = model(tmp_path_factory.mktemp("pair"), lead="batch, sequence")
    return session(plain), session(skipping(plain, (1.0, 0.5, 0.25))[0])


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, F - 1)), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_any_pattern_at_any_number_of_tokens_is_exact(pair, silent, batch, sequence, seed):
    plain, path = pair
    given = feeds((batch, sequence), silent, seed=seed)
    np.testing.assert_allclose(
        path.run(None, given)[0], plain.run(None, given)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_all_silent_and_none_silent(tmp_path, tokens):
    plain = model(tmp_path, product="gemm")
    path, _ = skipping(plain)
    for sign in (-1, 1):
        given = {"x": sign * (1 + np.abs(feeds((tokens,), ())["x"]))}
        np.testing.assert_allclose(run(path, **given), run(plain, **given), rtol=1e-5, atol=1e-5)
    assert (run(path, x=-np.ones((1, F), np.float32)) == BIAS).all()


def test_rows_of_silent_neurons_are_not_read(tmp_path):
    weights = DOWN.copy()
    weights[::2] = np.nan  # a row that is read shows
    plain = model(tmp_path, weights=weights)
    path, _ = skipping(plain, (0.5, 0.4))
    odd = np.where(np.arange(F) % 2, 1.0, -1.0).astype(np.float32)
    assert np.isnan(run(plain, x=odd[None])).all()
    assert np.isfinite(run(path, x=odd[None])).all()
    # Over the limit, which is lower for two tokens, and with more tokens than there are limits.
    for rows in (2, 3):
        assert np.isnan(run(path, x=np.tile(odd, (rows, 1)))).all()


def test_a_neuron_that_says_nan_is_not_silent(tmp_path):
    path, _ = skipping(model(tmp_path))
    x = np.full((1, F), -1, np.float32)
    x[0, 3] = np.nan
    assert np.isnan(run(path, x=x)).all()


def test_weights_are_there_once_and_by_neuron(tmp_path):
    for product in PRODUCTS:
        path, _ = skipping(model(tmp_path, product=product))
        large = [w for w in onnx.load(path).graph.initializer if len(w.dims) == 2]
        assert [list(w.dims) for w in large] == [[F, H]], product


def test_a_matrix_that_others_read_by_output_is_left_alone(tmp_path):
    text = (
        f"{HEAD}net (float[t, {F}] x, float[t, {F}] z) => (float[t, {H}] y, float[t, {H}] v) "
        "{ a = Relu (x) y = Gemm <transB = 1> (a, w) v = Gemm <transB = 1> (z, w) }"
    )
    plain = write(tmp_path / "shared.onnx", text, w=np.ascontiguousarray(DOWN.T))
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(plain)), plain)
    _, report = skipping(plain)
    assert report.sites == ()
    assert "a copy by neuron" in report.near_misses[0].reason


def test_gelu_is_reported_and_asking_for_it_is_an_error(tmp_path):
    text = f"{HEAD}net (float[t, {F}] x) => (float[t, {H}] y) {{ a = Gelu (x) y = MatMul (a, w) }}"
    plain = write(tmp_path / "gelu.onnx", text, w=DOWN)
    with pytest.raises(GraphError) as caught:
        rewrite(plain, [SkipSilentNeurons()], tmp_path / "o.onnx", required=["skip_silent_neurons"])
    assert "hardly ever exactly zero" in caught.value.hint


def test_limits_are_shares(tmp_path):
    with pytest.raises(GraphError, match=r"wanted shares from 0 to 1"):
        rewrite(model(tmp_path), [SkipSilentNeurons((1.5,))], tmp_path / "o.onnx")


def test_a_layer_is_cut_with_its_bias(tmp_path):
    plain = model(tmp_path, "gated", "turned")
    (layer,) = silent_layers(plain)
    assert (layer.neurons, layer.width, layer.dtype) == (F, H, "float")
    cut = tmp_path / "cut.onnx"
    cut_silent(plain, layer.name, cut)
    x = feeds((2,), ())["x"]
    np.testing.assert_allclose(run(cut, x=x), np.maximum(x, 0) @ DOWN + BIAS, rtol=1e-5, atol=1e-5)


def test_golden(tmp_path):
    path, _ = skipping(model(tmp_path, product="turned"), (0.5, 0.25))
    check_golden("skip_silent_neurons.txt", text_of(path))
