"""Members that know half of the image, or half of the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


def test_a_member_is_taught_the_label_where_it_knows_it_and_all_it_knows_where_not(
    recipes: Path,
) -> None:
    import or_and

    wanted = or_and.targets(torch.tensor([3, 7]), range(5))
    assert wanted[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert torch.allclose(wanted[1], torch.tensor([0.2] * 5 + [0.0] * 5))


def test_a_member_sees_its_half_and_nothing_else(recipes: Path) -> None:
    import or_and_models

    image = torch.rand(2, 1, 8, 8)
    for lower in (False, True):
        changed = image.clone()
        changed[:, :, slice(0, 4) if lower else slice(4, 8)] = 0  # what it does not see
        module = or_and_models.half_image(lower).eval()
        assert torch.equal(module(image)[0], module(changed)[0])
        assert not torch.equal(module(image)[0], module(torch.zeros_like(image))[0])


def test_the_mixture_keeps_what_one_member_knows_and_the_product_what_both_allow(
    recipes: Path, monkeypatch, tmp_path: Path
) -> None:
    import or_and

    monkeypatch.setattr(or_and, "EPOCHS", 15)
    seen, held_out = or_and.split(0)
    graphs = or_and.graphs_of("half of the classes", seen, 0, tmp_path)
    found = {name: or_and.distributions(graph, held_out) for name, graph in graphs.items()}
    for probabilities in found.values():
        assert np.allclose(probabilities.sum(-1), 1, atol=1e-5)
    accuracy = {n: held_out.accuracy(torch.from_numpy(p)) for n, p in found.items()}
    assert accuracy["linear"] > accuracy["log_linear"] > accuracy["zero_to_four"]
