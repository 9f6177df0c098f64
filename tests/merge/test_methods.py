"""What each method must do whatever its inputs are: laws, and formulas written out in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.merge.models import from_bfloat16, to_bfloat16
from toolkit.errors import MergeError
from toolkit.merge import merge_state_dicts

ml_dtypes = pytest.importorskip("ml_dtypes")

SHAPE = (24, 50)
# Every method that takes any number of models beside a base, and whether it is random.
TASK_METHODS = (
    "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties",
    "della", "della_linear",
)  # fmt: skip


def state(seed: int, dtype: str = "float32", change: float = 0.1) -> dict[str, np.ndarray]:
    base, own = np.random.default_rng(7), np.random.default_rng([7, seed])
    array = base.normal(size=SHAPE) + (change * own.normal(size=SHAPE) if seed else 0)
    return {"x.weight": array.astype(np.float32).astype(dtype)}


def models(dtype: str = "float32", count: int = 4) -> dict[str, dict[str, np.ndarray]]:
    names = ["base", *"abcdefg"][:count]
    return {name: state(seed, dtype) for seed, name in enumerate(names)}


def merge(method, given_models, per_model=None, base=None, seed=0, **shared):
    """Merge and return the one tensor; ``per_model`` maps a model to its parameters."""
    names = list(per_model) if per_model else [n for n in given_models if n != base]
    config = {
        "merge_method": method,
        "models": [{"model": n, "parameters": (per_model or {}).get(n, {})} for n in names],
        "parameters": shared,
    }
    if base:
        config["base_model"] = base
    return merge_state_dicts(config, given_models, seed=seed, force=True)["x.weight"]


def wide(models_):
    return {name: state_["x.weight"].astype(np.float64) for name, state_ in models_.items()}


# Linear.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_linear_with_one_weight_of_1_is_that_model_bit_for_bit(dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    found = {n: {"x.weight": s["x.weight"].astype(dtype)} for n, s in models().items()}
    found["a"]["x.weight"][0, :3] = [-0.0, 0.0, 1e-7]
    weights = {"base": {"weight": 0}, "a": {"weight": 1}, "b": {"weight": 0}}
    merged = merge("linear", found, weights)
    assert merged.tobytes() == found["a"]["x.weight"].tobytes()


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_sum_in_float64_rounded_once(normalize):
    found = models("float64", 3)
    weights = {"a": 0.3, "b": 0.5, "base": 0.9}
    merged = merge(
        "linear", found, {n: {"weight": w} for n, w in weights.items()}, normalize=normalize
    )
    total = sum(weights.values()) if normalize else 1.0
    # The order is that of the names.
    expected = sum(w / total * found[n]["x.weight"] for n, w in sorted(weights.items()))
    assert np.allclose(merged, expected, rtol=1e-15)


def test_a_uniform_soup_is_the_mean():
    found = models("float64", 4)
    mean = np.mean([s["x.weight"] for s in found.values()], axis=0)
    assert np.allclose(merge("uniform_soup", found), mean, rtol=1e-14)


def test_wise_ft_goes_from_the_base_to_the_fine_tune():
    found = models("float32", 2)
    assert np.array_equal(merge("wise_ft", found, base="base", alpha=0), found["base"]["x.weight"])
    assert np.array_equal(merge("wise_ft", found, base="base", alpha=1), found["a"]["x.weight"])
    half = merge("wise_ft", found, base="base", alpha=0.25)
    expected = 0.75 * wide(found)["base"] + 0.25 * wide(found)["a"]
    assert np.array_equal(half, expected.astype(np.float32))


def test_weights_that_add_up_to_0_are_refused():
    with pytest.raises(MergeError, match=r"weights \[-1.0, 1.0\] add up to 0"):
        merge("linear", models("float32", 2), {"base": {"weight": 1}, "a": {"weight": -1}})


# Order of models, chunks, threads.


@pytest.mark.parametrize(
    ("method", "base", "own"),
    [
        ("linear", None, {"weight": 0.3}),
        ("uniform_soup", None, {}),
        ("karcher", None, {}),
        ("multislerp", None, {"weight": 0.7}),
        ("model_stock", "base", {}),
        ("sce", "base", {}),
        *[(m, "base", {"weight": 0.6, "density": 0.6} if m != "task_arithmetic" else {"weight": 1})
          for m in TASK_METHODS],
    ],
)  # fmt: skip
def test_the_order_of_models_changes_no_byte(method, base, own):
    found = models("float32", 4)
    names = [n for n in found if n != base]
    results = {
        merge(method, found, dict.fromkeys(order, own), base=base).tobytes()
        for order in itertools.permutations(names, len(names))
        if order[0] in names[:2]
    }
    assert len(results) == 1


# Slerp and its relatives.


def slerp(t, a, b):
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = np.arccos(np.sum(u * v))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


@pytest.mark.parametrize(("t", "name"), [(0, "base"), (1, "a")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slerp_begins_at_the_base_and_ends_at_the_other_model(t, name, dtype):
    found = models(dtype, 2)
    merged = merge("slerp", found, base="base", t=t)
    assert np.allclose(merged, found[name]["x.weight"], rtol=1e-6 if dtype == "float32" else 1e-15)


@given(t=st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_slerp_is_the_formula(t):
    found = models("float64", 2)
    merged = merge("slerp", found, base="base", t=t)
    assert np.allclose(merged, slerp(t, *wide(found).values()), rtol=1e-12)


def test_slerp_of_nearly_parallel_models_is_linear_unless_the_threshold_says_otherwise():
    found = {"base": state(0, "float64"), "a": state(1, "float64", change=0.01)}
    base, other = wide(found).values()
    linear = merge("slerp", found, base="base", t=0.3)
    assert np.array_equal(linear, 0.7 * base + 0.3 * other)
    curved = merge("slerp", found, base="base", t=0.3, threshold=1)
    assert np.allclose(curved, slerp(0.3, base, other), rtol=1e-9)


def test_slerp_of_opposite_models_interpolates_linearly():
    found = {"base": state(0, "float64"), "a": {"x.weight": -state(0, "float64")["x.weight"]}}
    assert np.allclose(merge("slerp", found, base="base", t=0.5), 0, atol=1e-12)


def test_nuslerp_is_slerp_at_the_ratio_of_weights_and_of_task_vectors_with_a_base():
    found = models("float64", 3)
    weights = {"a": {"weight": 1}, "b": {"weight": 3}}
    values = wide(found)
    assert np.allclose(merge("nuslerp", found, weights), slerp(0.75, values["a"], values["b"]))
    based = merge("nuslerp", found, weights, base="base")
    deltas = [values[n] - values["base"] for n in "ab"]
    assert np.allclose(based, values["base"] + slerp(0.75, *deltas))


@pytest.mark.parametrize("columns", [False, True])
def test_nuslerp_without_flattening_treats_rows_or_columns_by_themselves(columns):
    found = models("float64", 3)
    weights = {"a": {"weight": 1}, "b": {"weight": 1}}
    merged = merge("nuslerp", found, weights, nuslerp_flatten=False, nuslerp_row_wise=columns)
    a, b = (wide(found)[n].T if columns else wide(found)[n] for n in "ab")
    expected = np.stack([slerp(0.5, u, v) for u, v in zip(a, b, strict=True)])
    assert np.allclose(merged, expected.T if columns else expected, rtol=1e-12)


def test_karcher_and_multislerp_of_two_equal_weights_are_the_midpoint_of_the_arc():
    found = models("float64", 3)
    del found["base"]
    a, b = wide(found).values()
    lengths = (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    middle = slerp(0.5, a / np.linalg.norm(a), b / np.linalg.norm(b)) * lengths
    weights = {"a": {"weight": 1}, "b": {"weight": 1}}
    assert np.allclose(merge("karcher", found), middle, rtol=1e-9)
    assert np.allclose(merge("multislerp", found, weights), middle, rtol=1e-6)


def test_multislerp_of_opposite_directions_in_balance_is_refused_for_more_than_two():
    angles = np.arange(3) * 2 * np.pi / 3
    found = {
        n: {"x.weight": np.array([np.cos(a), np.sin(a)])}
        for n, a in zip("abc", angles, strict=True)
    }
    with pytest.raises(MergeError, match="the weighted sum of the directions is zero"):
        merge("multislerp", found, {n: {"weight": 1} for n in "abc"})


# Task vectors.


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("method", TASK_METHODS)
def test_task_vectors_of_weight_0_give_the_base_bit_for_bit(method, dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    found = {n: {"x.weight": s["x.weight"].astype(dtype)} for n, s in models().items()}
    found["base"]["x.weight"][0, 0] = -0.0
    merged = merge(method, found, {n: {"weight": 0} for n in "abc"}, base="base")
    assert merged.tobytes() == found["base"]["x.weight"].tobytes()


def test_task_arithmetic_adds_and_negates_scaled_task_vectors():
    found = models("float64", 3)
    values = wide(found)
    weights = {"a": {"weight": 0.5}, "b": {"weight": -1.5}}
    merged = merge("task_arithmetic", found, weights, base="base", **{"lambda": 0.8})
    change = 0.5 * (values["a"] - values["base"]) - 1.5 * (values["b"] - values["base"])
    assert np.allclose(merged, values["base"] + 0.8 * change, rtol=1e-14)


def test_ties_of_identical_models_with_density_1_is_that_model():
    found = {"base": state(0), "a": state(1), "b": state(1), "c": state(1)}
    merged = merge("ties", found, {n: {"weight": 1} for n in "abc"}, base="base")
    assert np.array_equal(merged, found["a"]["x.weight"])


def test_a_sum_of_0_elects_plus():
    base = np.zeros(SHAPE)
    found = {n: {"x.weight": base + v} for n, v in (("base", 0.0), ("a", 1.0), ("b", -1.0))}
    merged = merge("ties", found, {n: {"weight": 1} for n in "ab"}, base="base")
    assert np.array_equal(merged, base + 1)


def trimmed(delta, density):
    flat = np.abs(delta.astype(np.float32)).reshape(-1)
    keep = np.zeros(flat.size)
    keep[np.argsort(-flat, kind="stable")[: int(density * flat.size)]] = 1
    return delta * keep.reshape(delta.shape)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_ties_trims_elects_and_merges_as_the_paper_says(normalize, half):
    found = models("float32", 4)
    if half:
        found = {
            n: {"x.weight": from_bfloat16(to_bfloat16(s["x.weight"]))} for n, s in found.items()
        }
    options = {"a": (0.3, 0.5), "b": (0.9, 0.25), "c": (0.4, 1.0)}
    own = {n: {"weight": w, "density": d} for n, (w, d) in options.items()}
    merged = merge("ties", found, own, base="base", normalize=normalize)
    values = wide(found)
    deltas = np.stack([w * trimmed(values[n] - values["base"], d) for n, (w, d) in options.items()])
    agrees = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1, -1)
    total = (deltas * agrees).sum(0)
    if normalize:
        weights = np.array([w for w, _ in options.values()])[:, None, None]
        divisor = (weights * agrees).sum(0)
        total = total / np.where(divisor == 0, 1, divisor)
    assert np.allclose(merged, values["base"] + total, rtol=1e-6, atol=1e-7)


def test_dares_factor_is_exactly_1_by_density():
    found = {"base": {"x.weight": np.zeros(SHAPE)}, "a": state(1, "float64")}
    merged = merge("dare_linear", found, {"a": {"weight": 1, "density": 0.25}}, base="base")
    kept = merged != 0
    assert np.array_equal(merged[kept], found["a"]["x.weight"][kept] / 0.25)
    assert 0.15 < kept.mean() < 0.35


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_the_expectation_over_seeds_is_the_task_vector(method):
    found = models("float64", 2)
    own = {"a": {"weight": 1, "density": 0.6}}
    runs = np.stack([merge(method, found, own, base="base", seed=s) for s in range(400)])
    values = wide(found)
    delta = values["a"] - values["base"]
    # The largest standard error among the elements: p is at least 0.45.
    error = np.abs(delta) * np.sqrt((1 - 0.45) / 0.45 / len(runs))
    assert np.all(np.abs(runs.mean(0) - values["a"]) < 5 * error + 1e-12)


def test_random_masks_depend_on_seed_model_and_tensor_and_on_nothing_else():
    found = models("float32", 3)
    own = {"a": {"weight": 1, "density": 0.5}, "b": {"weight": 0, "density": 0.5}}
    first = merge("dare_linear", found, own, base="base")
    assert np.array_equal(first, merge("dare_linear", found, own, base="base"))
    assert not np.array_equal(first, merge("dare_linear", found, own, base="base", seed=1))
    # The draws of a model do not move when another comes in or changes its density.
    alone = merge("dare_linear", found, {"a": own["a"]}, base="base")
    denser = {"a": own["a"], "b": {"weight": 0, "density": 0.9}}
    assert np.array_equal(first, alone)
    assert np.array_equal(first, merge("dare_linear", found, denser, base="base"))


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "della", "breadcrumbs"])
def test_rescaling_by_the_l1_norm_is_mergekits_way(method):
    found = {"base": {"x.weight": np.zeros(SHAPE)}, "a": state(1, "float64")}
    merged = merge(
        method, found, {"a": {"weight": 1, "density": 0.5}}, base="base",
        rescale=True, rescale_by="l1", normalize=False,
    )  # fmt: skip
    assert np.isclose(np.abs(merged).sum(), np.abs(found["a"]["x.weight"]).sum(), rtol=1e-12)


def test_breadcrumbs_drops_the_largest_and_the_smallest():
    found = {
        "base": {"x.weight": np.zeros((10, 10))},
        "a": {"x.weight": np.arange(100.0).reshape(10, 10)},
    }
    own = {"a": {"weight": 1, "density": 0.7, "gamma": 0.1}}
    merged = merge("breadcrumbs", found, own, base="base")
    expected = np.where((np.arange(100) >= 20) & (np.arange(100) < 90), np.arange(100.0), 0)
    assert np.array_equal(merged.reshape(-1), expected)


def test_breadcrumbs_keeps_to_the_density_where_gamma_would_drop_too_much():
    found = {
        "base": {"x.weight": np.zeros((10, 10))},
        "a": {"x.weight": np.arange(1, 101.0).reshape(10, 10)},
    }
    own = {"a": {"weight": 1, "density": 0.9, "gamma": 0.5}}
    merged = merge("breadcrumbs", found, own, base="base").reshape(-1)
    assert np.count_nonzero(merged) == 90
    assert np.array_equal(np.flatnonzero(merged == 0), np.arange(90, 100))


def test_della_keeps_large_entries_more_often():
    delta = np.tile(np.linspace(0.1, 1, 50), (400, 1))
    found = {"base": {"x.weight": np.zeros_like(delta)}, "a": {"x.weight": delta}}
    own = {"a": {"weight": 1, "density": 0.5, "epsilon": 0.4}}
    kept = merge("della_linear", found, own, base="base") != 0
    share = kept.mean(0)
    expected = np.linspace(0.1, 0.9, 50)
    assert np.all(np.abs(share - expected) < 5 * np.sqrt(0.25 / 400))


def test_della_refuses_probabilities_outside_of_0_and_1():
    with pytest.raises(MergeError, match=r"probabilities from 0\.7 to 1\.1"):
        merge(
            "della",
            models(count=2),
            {"a": {"weight": 1, "density": 0.9, "epsilon": 0.2}},
            base="base",
        )


# The others.


def test_model_stock_moves_from_the_base_by_the_mean_angle():
    found = models("float64", 4)
    values = wide(found)
    deltas = [(values[n] - values["base"]).reshape(-1) for n in "abc"]
    cosines = [
        u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in itertools.combinations(deltas, 2)
    ]
    c = np.mean(cosines)
    t = 3 * c / (1 + 2 * c)
    expected = values["base"] + t * np.mean(deltas, axis=0).reshape(SHAPE)
    assert np.allclose(merge("model_stock", found, base="base"), expected, rtol=1e-12)


def test_sce_selects_weighs_and_erases():
    found = models("float64", 3)
    values = wide(found)
    deltas = np.stack([values[n] - values["base"] for n in "ab"])
    variance = deltas.var(0).astype(np.float32).reshape(-1)
    keep = np.zeros(variance.size)
    keep[np.argsort(-variance, kind="stable")[: int(0.4 * variance.size)]] = 1
    deltas = deltas * keep.reshape(SHAPE)
    weights = np.square(deltas).sum((1, 2))
    weights = (weights / weights.sum())[:, None, None]
    agrees = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1, -1)
    change = (weights * deltas * agrees).sum(0) / np.maximum((weights * agrees).sum(0), 1e-6)
    merged = merge("sce", found, base="base", select_topk=0.4)
    assert np.allclose(merged, values["base"] + change, rtol=1e-12)


def test_nearswap_moves_each_element_by_at_most_t():
    found = models("float64", 2)
    merged = merge("nearswap", found, base="base", t=0.05)
    values = wide(found)
    delta = values["a"] - values["base"]
    expected = values["base"] + np.clip(delta, -0.05, 0.05)
    assert np.allclose(merged, expected, rtol=1e-14)


def test_arcee_fusion_takes_only_salient_elements():
    found = models("float64", 2)
    merged = merge("arcee_fusion", found, base="base")
    values = wide(found)
    a, base = values["a"], values["base"]
    softmax = [np.exp(x) / np.exp(x).sum(1, keepdims=True) + 1e-8 for x in (a, base)]
    divergence = (softmax[0] * np.log(softmax[0] / softmax[1])).sum(1, keepdims=True)
    scores = np.sort((np.abs(a - base) * divergence).reshape(-1))
    low, middle, high = (scores[int(q * (scores.size - 1))] for q in (0.25, 0.5, 0.75))
    take = np.abs(a - base) * divergence >= middle + 1.5 * (high - low)
    assert 0 < take.mean() < 0.3
    assert np.mean(merged == np.where(take, a, base)) > 0.998  # scores are compared in float32


def test_passthrough_scales_or_copies():
    found = models("float32", 1)
    assert np.array_equal(merge("passthrough", found), found["base"]["x.weight"])
    scaled = merge("passthrough", found, {"base": {"scale": 0.5}})
    assert np.array_equal(scaled, 0.5 * found["base"]["x.weight"])


def test_float16_results_that_do_not_fit_are_refused():
    found = {"a": {"x.weight": np.full(SHAPE, 300, np.float16)}}
    with pytest.raises(MergeError, match="does not fit into F16"):
        merge("passthrough", found, {"a": {"scale": 300}})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "slerp", "model_stock"])
def test_an_input_that_is_not_finite_is_refused_with_its_place(method, bad):
    found = models("float32", 3)
    found["b"]["x.weight"][2, 7] = bad
    own = {"linear": {"weight": 1}, "task_arithmetic": {"weight": 1}, "ties": {"weight": 1}}
    base, shared = (None, {}) if method == "linear" else ("base", {})
    if method == "slerp":
        found.pop("a")
        shared = {"t": 0.5}
    names = [n for n in found if n != base]
    with pytest.raises(MergeError, match=r"b: tensor 'x.weight' holds NaN or Inf at \[2, 7\]"):
        merge(method, found, {n: own.get(method, {}) for n in names}, base=base, **shared)


# Rounding.


@pytest.mark.parametrize(
    ("method", "most", "shared"),
    [
        ("linear", 0, {}), ("slerp", 1e-3, {"t": 0.3}), ("task_arithmetic", 1e-3, {}),
        ("ties", 1e-3, {}),
    ],
)  # fmt: skip
def test_results_are_the_float64_result_rounded_once(method, most, shared):
    rng = np.random.default_rng(3)
    base = rng.normal(size=(256, 256))
    found = {
        n: {"x.weight": (base + s * rng.normal(size=base.shape)).astype(ml_dtypes.bfloat16)}
        for n, s in (("base", 0), ("a", 0.1), ("b", 0.1))
    }
    exact = {n: {"x.weight": s["x.weight"].astype(np.float64)} for n, s in found.items()}
    origin = None if method == "linear" else "base"
    names = ["a", "b"] if method != "slerp" else ["a"]
    own = {n: {} if method == "slerp" else {"weight": 0.4} for n in names}
    half = merge(method, found, own, base=origin, **shared)
    full = merge(method, exact, own, base=origin, **shared)
    # float64 to bfloat16 in one step: float32 first would round twice.
    bits = full.view(np.uint64)
    bits = bits + np.uint64((1 << 44) - 1) + (bits >> np.uint64(45) & np.uint64(1))
    rounded = (bits >> np.uint64(45) << np.uint64(45)).view(np.float64)
    assert np.mean(half.astype(np.float64) != rounded) <= most
