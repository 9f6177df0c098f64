"""Objectives against float64 definitions written out, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from toolkit.distill import (
    HardLabels,
    Matching,
    Pair,
    StudentOutputs,
    Targets,
    Weighted,
    WordLevel,
    compress,
    mixed,
)
from toolkit.distill.divergences import bucketed, divergence
from toolkit.errors import RecipeError

KINDS = [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1), ("jsd", 0.9)]
N, V = 7, 11


def drawn(seed, *shape, scale=2.0):
    return scale * torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def reference(kind, beta, p, q):
    """Rows of probabilities, one class at a time."""
    found = []
    for target, student in zip(p.tolist(), q.tolist(), strict=True):
        total = 0.0
        for a, b in zip(target, student, strict=True):
            m = beta * a + (1 - beta) * b
            if kind == "forward_kl":
                total += a * np.log(a / b) if a else 0.0
            elif kind == "reverse_kl":
                total += b * np.log(b / a)
            else:
                total += beta * a * np.log(a / m) if a else 0.0
                total += (1 - beta) * b * np.log(b / m)
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def said(logits, mask=None):
    return StudentOutputs(logits, {}, torch.ones(len(logits), dtype=bool) if mask is None else mask)


def told(log_probs, **more):
    return Targets(torch.ones(len(log_probs), dtype=bool), log_probs=log_probs, **more)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_divergence_is_its_definition(kind, beta, dtype):
    for temperature in (1.0, 2.5):
        z, log_p = drawn(1, N, V).to(dtype), drawn(2, N, V).to(dtype).log_softmax(-1)
        mask = torch.tensor([True] * 5 + [False] * 2)
        loss = WordLevel(kind, temperature, beta)(said(z, mask), told(log_p), {})
        p = (log_p.double() / temperature).softmax(-1)
        q = (z.double() / temperature).softmax(-1)
        wanted = temperature**2 * reference(kind, beta, p, q)[:5].sum()
        assert int(loss.count) == 5
        torch.testing.assert_close(loss.total.double(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_gradients(kind, beta):
    z = drawn(3, 3, 5).requires_grad_()
    log_p = drawn(4, 3, 5).log_softmax(-1)
    barred = log_p.masked_fill(torch.eye(3, 5).bool(), -torch.inf).log_softmax(-1)
    small = compress(told(log_p), top_k=2, temperature=1.7)
    objective = WordLevel(kind, 1.7, beta)
    for target in (told(log_p), told(barred), small):

        def loss(x, target=target):
            return objective(said(x), target, {}).total

        assert torch.autograd.gradcheck(loss, (z,))


def test_word_level_from_one_teacher_is_pytorchs_kl_div():
    z, teacher = drawn(5, N, V).float().requires_grad_(), drawn(6, N, V).float()
    loss = WordLevel()(said(z), told(teacher.log_softmax(-1)), {}).mean
    wanted = functional.kl_div(z.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    (ours,) = torch.autograd.grad(loss, z, retain_graph=True)
    (theirs,) = torch.autograd.grad(wanted, z)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    top_k=st.integers(1, V),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    scale=st.sampled_from([0.1, 2.0, 20.0]),
)
def test_buckets_give_a_lower_bound(seed, kind, top_k, top_p, scale):
    z, log_p = drawn(seed, N, V), drawn(seed + 1, N, V, scale=scale).log_softmax(-1)
    z.requires_grad_()
    full = told(log_p)
    small = compress(full, top_k=top_k, top_p=top_p)
    mass = small.kept.exp().sum(-1) + small.rest.exp()
    torch.testing.assert_close(mass, torch.ones_like(mass))
    apart = divergence(*kind)
    buckets = torch.cat((small.kept, small.rest[:, None]), dim=-1)
    below = apart(buckets, bucketed(z, small.ids, small.kept))
    whole = apart(log_p, z.log_softmax(-1))
    assert bool((below <= whole + 1e-9).all())
    assert bool(below.sum().isfinite())
    (gradient,) = torch.autograd.grad(below.sum(), z)
    assert bool(gradient.isfinite().all())
    if top_k == V and top_p == 1.0:
        torch.testing.assert_close(below, whole)
    if kind[0] == "forward_kl":  # what is lost is said in the docstring
        lost = log_p.scatter(1, small.ids, -torch.inf)
        some = ~lost.isneginf().all(-1)
        p = lost[some].log_softmax(-1)
        q = z.detach().scatter(1, small.ids, -torch.inf)[some].log_softmax(-1)
        gap = small.rest[some].exp() * divergence("forward_kl")(p, q)
        torch.testing.assert_close((whole - below)[some].detach(), gap, rtol=1e-6, atol=1e-9)


def test_the_mean_of_kls_has_the_gradient_of_a_mixture_and_backwards_of_a_product():
    """Known identities: in T = 1 the constants differ and nothing else."""
    z = drawn(7, N, V).requires_grad_()
    members, weights = [drawn(8, N, V), drawn(9, N, V)], torch.tensor([0.3, 0.7])
    both = Targets(
        torch.ones(N, dtype=bool),
        log_probs=None,
        per_teacher=tuple(members),
        weights=weights,
    )
    logs = [m.log_softmax(-1) for m in members]
    mixture = torch.stack([one + w.log() for one, w in zip(logs, weights, strict=True)])
    product = sum(w * one for one, w in zip(logs, weights, strict=True))
    for kind, same in (
        ("forward_kl", mixture.logsumexp(0)),
        ("reverse_kl", product.log_softmax(-1)),
    ):
        losses = [WordLevel(kind)(said(z), target, {}).total for target in (both, told(same))]
        first, second = (torch.autograd.grad(loss, z)[0] for loss in losses)
        torch.testing.assert_close(first, second)
        assert abs(float((losses[0] - losses[1]).detach())) > 1e-2
    gated = torch.stack((weights, weights.flip(0))).repeat(4, 1)[:N]
    by_row = Targets(both.mask, per_teacher=both.per_teacher, weights=gated)
    wanted = sum(
        gated[:, i] * divergence("forward_kl")(one, z.log_softmax(-1)) for i, one in enumerate(logs)
    ).sum()
    torch.testing.assert_close(WordLevel()(said(z), by_row, {}).total, wanted)


def test_a_veto_is_left_out_of_the_reverse_kl():
    z = drawn(10, 1, 4)
    log_p = torch.tensor([[0.2, 0.3, 0.5, 0.0]], dtype=torch.float64).log()
    three = WordLevel("reverse_kl")(said(z[:, :3]), told(log_p[:, :3]), {}).total
    torch.testing.assert_close(WordLevel("reverse_kl")(said(z), told(log_p), {}).total, three)
    for kind in ("forward_kl", "jsd"):
        assert bool(WordLevel(kind)(said(z), told(log_p), {}).total.isfinite())


def test_labels_are_mixed_in():
    labels = torch.tensor([0, 3, -100, 2, 1, 1, 10])
    z, log_p = drawn(11, N, V), drawn(12, N, V).log_softmax(-1)
    hard, soft = HardLabels("classification"), WordLevel(temperature=2.0)
    parts = [one(said(z), told(log_p), {"x": z, "labels": labels}).mean for one in (hard, soft)]
    loss = mixed(0.3, hard, soft)(said(z), told(log_p), {"x": z, "labels": labels}).mean
    torch.testing.assert_close(loss, 0.3 * parts[0] + 0.7 * parts[1])
    wanted = -z.log_softmax(-1)[labels >= 0, labels[labels >= 0]].sum() / N
    torch.testing.assert_close(parts[0], wanted)
    ids = torch.tensor([[5, 2, 9], [1, 7, 0]])
    causal = {"input_ids": ids, "labels": torch.where(ids == 0, -100, ids)}
    mask = torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    found = HardLabels("causal-lm")(said(z[:6], mask), told(log_p), causal)
    logs = z.log_softmax(-1)
    torch.testing.assert_close(found.total, -(logs[0, 2] + logs[1, 9] + logs[3, 7]))


def test_inner_tensors_are_matched_through_projections():
    mask = torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    batch = {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    own, wanted = drawn(13, 2, 3, 4), drawn(14, 2, 3, 5)
    heads, theirs = drawn(15, 2, 2, 3, 3).softmax(-1), drawn(16, 2, 3, 3, 3).softmax(-1)
    student = StudentOutputs(None, {"h": own, "a": heads}, mask)
    targets = Targets(mask, hidden={"t/h": wanted, "t/a": theirs})
    for kind, names in (
        ("mse", ("h", "t/h")),
        ("cosine", ("h", "t/h")),
        ("attention", ("a", "t/a")),
    ):
        match = Matching.of(kind, [names], (student.hidden, targets.hidden), seed=3).double()
        weight = match.projections[0].weight.detach()
        loss = match(student, targets, batch)
        total = 0.0
        for b, s in ((0, 0), (0, 1), (1, 0)):
            if kind == "attention":
                keys = 3 - b
                mixture = torch.einsum("hg,gk->hk", weight, heads[b, :, s])
                total += (mixture - theirs[b, :, s]).square()[:, :keys].mean()
            else:
                x, y = weight @ own[b, s], wanted[b, s]
                total += (
                    (x - y).square().mean() if kind == "mse" else 1 - x @ y / x.norm() / y.norm()
                )
        torch.testing.assert_close(loss.total, total)
        assert int(loss.count) == 3
        loss.total.backward()
        assert bool(match.projections[0].weight.grad.abs().sum() > 0)
        assert len(list(Weighted([(1.0, match), (0.5, WordLevel())]).parameters())) == 1
    match = Matching("mse", [Pair("h", "t/h", 4, 5)], 1).double()

    def matched(x):
        return match(StudentOutputs(None, {"h": x}, mask), targets, batch).total

    assert torch.autograd.gradcheck(matched, (own.clone().requires_grad_(),))
    vectors = StudentOutputs(None, {"e": drawn(17, 2, 4)}, torch.ones(2).bool())
    same = Targets(vectors.mask, hidden={"e": vectors.hidden["e"] * 3})
    match = Matching.of("cosine", [("e", "e")], (vectors.hidden, same.hidden))
    assert float(match(vectors, same, {}).total.abs()) < 1e-12
    assert not list(match.parameters())


def test_a_row_of_an_example_is_the_mean_over_its_tokens():
    own, wanted = drawn(18, 2, 3, 4), drawn(19, 2, 3, 4)
    mask = torch.ones(2).bool()
    batch = {"attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    student, targets = StudentOutputs(None, {"h": own}, mask), Targets(mask, hidden={"h": wanted})
    match = Matching.of("mse", [("h", "h")], (student.hidden, targets.hidden))
    apart = (own - wanted).square().mean(-1)
    torch.testing.assert_close(match(student, targets, batch).total, apart[0].mean() + apart[1, 0])


def test_what_does_not_fit_is_refused():
    z, log_p = drawn(20, N, V), drawn(21, N, V + 1).log_softmax(-1)
    with pytest.raises(RecipeError, match="12 classes and the student of 11"):
        WordLevel()(said(z), told(log_p), {})
    with pytest.raises(RecipeError, match="of temperature 1 and the objective's is 2"):
        WordLevel(temperature=2.0)(said(z), compress(told(log_p), top_k=2), {})
    with pytest.raises(RecipeError, match="wanted above 0 and below 1"):
        WordLevel("jsd", beta=1.0)
    with pytest.raises(RecipeError, match="a label is 11, and the student has 11 classes"):
        labels = {"x": z, "labels": torch.full((N,), 11)}
        HardLabels("classification")(said(z), told(log_p), labels)
