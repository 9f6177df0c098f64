from __future__ import annotations

import numpy as np
import pytest

from benchmarks.batched_members import CASES, Members
from tests.graphs.models import session


@pytest.mark.parametrize("name", [name for name in CASES if "4 x 64" not in name])
def test_stacked_members_compute_what_they_compute_apart(name):
    found = []
    for stacked in (False, True):
        model, x = CASES[name](Members(3, stacked))
        found.append(session(model).run(None, {"x": x})[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3 * np.abs(found[0]).max())
