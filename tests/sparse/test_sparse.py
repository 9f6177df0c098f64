"""Pruning against its published definitions, in float64, and masks that training keeps."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch

from toolkit.errors import MergeError
from toolkit.sparse import (
    Masks,
    Moments,
    Pattern,
    check_pattern,
    magnitude,
    second_order,
    wanda,
)

TWO = Pattern(2, 4)


def random(*sizes, seed=0):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(rows, width, seed=1):
    """Of inputs that are correlated, as those of a real layer."""
    x = random(rows, width, seed=seed) @ random(width, width, seed=seed + 1)
    return x, x.T @ x


def brute_force(w, h, n, m):
    """The best masks of one row by trying all, and the best weights under each."""
    groups = [list(combinations(range(g, g + m), n)) for g in range(0, len(w), m)]
    best = (np.inf, None)
    for choice in product(*groups):
        kept = sorted(sum(choice, ()))
        v = np.zeros_like(w)
        v[kept] = np.linalg.solve(h[np.ix_(kept, kept)], h[kept] @ w)
        cost = (w - v) @ h @ (w - v)
        best = min(best, (cost, tuple(v)))
    return best[0], np.array(best[1])


def test_magnitude_keeps_the_largest_of_every_group_by_definition():
    w = random(5, 12)
    found = magnitude(w, TWO)
    for row, out in zip(w.tolist(), found.tolist(), strict=True):
        for g in range(0, 12, 4):
            order = sorted(range(4), key=lambda i: -abs(row[g + i]))[:2]
            wanted = [row[g + i] if i in order else 0.0 for i in range(4)]
            assert out[g : g + 4] == wanted


def test_of_equal_ones_the_first_are_kept():
    assert Pattern(2, 4).keep(torch.ones(1, 8)).tolist() == [[True, True, False, False] * 2]


def test_wanda_is_its_formula():
    w, (x, _) = random(6, 8), gram(50, 8)
    moments = Moments("norms")
    moments.add(x[:20])
    moments.add(x[20:].reshape(3, 10, 8))
    assert moments.rows == 50
    scores = w.abs() * (x**2).sum(0).sqrt()
    found = wanda(w, moments.norms, Pattern(1, 4))
    kept = scores.reshape(6, 2, 4).argmax(-1)
    wanted = torch.zeros(6, 2, 4, dtype=torch.float64)
    wanted.scatter_(-1, kept[..., None], w.reshape(6, 2, 4).gather(-1, kept[..., None]))
    torch.testing.assert_close(found, wanted.reshape(6, 8), rtol=0, atol=0)


def test_second_order_of_one_group_is_the_optimum_of_all_masks_and_weights():
    w, (_, h) = random(16, 4), gram(40, 4)
    found = second_order(w, h, TWO, damp=0)
    for row, out in zip(w.numpy(), found.numpy(), strict=True):
        cost, best = brute_force(row, h.numpy(), 2, 4)
        np.testing.assert_allclose(out, best, rtol=1e-8, atol=1e-10)
        assert (row - out) @ h.numpy() @ (row - out) == pytest.approx(cost, rel=1e-8)


def reference(w, h, n, m):
    """The same written down again: explicit inverses of what is left, a row at a time."""
    out = w.copy()
    for left in range(0, w.shape[1], m):
        inverse = np.linalg.inv(h[left:, left:])
        for row in out:
            costs = {}
            for q in map(list, combinations(range(m), m - n)):
                solved = np.linalg.solve(inverse[np.ix_(q, q)], row[left:][q])
                costs[row[left:][q] @ solved] = (q, solved)
            q, solved = costs[min(costs)]
            row[left:] -= solved @ inverse[q]
            row[[left + i for i in q]] = 0
    return out


@pytest.mark.parametrize(("n", "m", "width"), [(2, 4, 24), (1, 4, 12), (4, 8, 16), (2, 4, 300)])
def test_second_order_is_its_definition_over_many_groups_and_blocks(n, m, width):
    w, (_, h) = random(3, width), gram(2 * width, width)
    h += 0.1 * h.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    found = second_order(w, h, Pattern(n, m), damp=0)
    np.testing.assert_allclose(found.numpy(), reference(w.numpy(), h.numpy(), n, m), rtol=1e-6)
    assert check_pattern(found.numpy(), Pattern(n, m)).holds == 1


def test_second_order_lies_between_the_optimum_and_wanda():
    w, (x, h) = random(8, 8), gram(40, 8)
    found = second_order(w, h, TWO, damp=0)
    other = wanda(w, (x**2).sum(0).sqrt(), TWO)
    lost = [float(((w - v) @ h * (w - v)).sum()) for v in (found, other)]
    best = sum(brute_force(row, h.numpy(), 2, 4)[0] for row in w.numpy())
    assert best <= lost[0] * (1 + 1e-9) < lost[1]


def test_without_correlation_second_order_is_wanda():
    w, norms = random(5, 8), random(8).abs() + 0.1
    found = second_order(w, torch.diag(norms**2), TWO, damp=0)
    torch.testing.assert_close(found, wanda(w, norms, TWO))


def test_inputs_that_are_always_zero_lose_their_weights_and_nothing_breaks():
    w, (_, h) = random(4, 8), gram(40, 8)
    h[2], h[:, 2] = 0, 0
    found = second_order(w.float(), h, TWO)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found[:, 2] == 0).all()


def test_patterns_are_checked_along_the_right_axis_and_in_bits():
    w = magnitude(random(4, 8), TWO)
    assert check_pattern(w.numpy(), TWO) == check_pattern(w.T.numpy(), TWO, axis=0)
    assert check_pattern(w.numpy(), TWO).holds == 1
    assert check_pattern(w.numpy(), TWO).zeros == 0.5
    assert check_pattern(w.numpy(), TWO, axis=0).holds < 1
    bits = (w * 1).bfloat16().view(torch.uint16).numpy()
    assert check_pattern(bits, TWO).holds == 1
    negative = np.array([[0x8000, 0x8000, 0x3F80, 0x3F80]], np.uint16)  # -0, -0, 1, 1
    assert check_pattern(negative, TWO).holds == 1
    assert check_pattern(np.ones((2, 6)), TWO).holds == 0


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2/4", ""])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(MergeError, match="wanted N:M with 0 < N < M"):
        Pattern.parse(text)


def test_masks_stay_through_training_and_weights_move():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.copy_(magnitude(model[0].weight, TWO))
    before = model[0].weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    handle = Masks.of(model).hold(model, optimizer)
    for _ in range(5):
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    assert check_pattern(model[0].weight.detach().numpy(), TWO).holds == 1
    assert (model[0].weight != before).sum() == 32
    handle.remove()
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
    assert check_pattern(model[0].weight.detach().numpy(), TWO).holds < 1


def test_a_dense_model_has_no_masks():
    with pytest.raises(MergeError, match="no matrix of the model has 25% zeros"):
        Masks.of(torch.nn.Linear(4, 4))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "second-order", "masks"])
def test_what_goes_is_zero_in_every_bit(method):
    """-0.0 is equal to zero and costs storage like any other number."""
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    if method == "masks":
        layer = torch.nn.Linear(16, 8, bias=False)
        layer.weight.data = magnitude(weight, Pattern(2, 4))
        masks = Masks.of(layer)
        layer.weight.data = weight.clone()
        masks.apply(layer)
        found = layer.weight.data
    elif method == "magnitude":
        found = magnitude(weight, Pattern(2, 4))
    elif method == "wanda":
        found = wanda(weight, rows.norm(dim=0), Pattern(2, 4))
    else:
        found = second_order(weight, rows.T @ rows, Pattern(2, 4))
    assert int((found.view(torch.int32) == 0).sum()) == 64
