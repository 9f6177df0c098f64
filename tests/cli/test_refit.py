"""``toolkit refit``: what it says and the exit codes."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_file

from tests.workshop import weights
from toolkit.bundle import open_bundle


def test_refit_from_the_command_line(run, shop):
    save_file(weights("linear", 9), shop / "later.safetensors")
    given = ("--with", "later.safetensors", "--member", "linear", "--allow-code")
    assert run("export", "recipe.yaml", "-o", "out", "--allow-code").code == 0
    for places, text in (((), "neither -o nor"), (("-o", "new", "--in-place"), "both -o and")):
        found = run("refit", "out", *given, *places)
        assert (found.code, text in found.err) == (1, True)
    found = run("refit", "out", *given, "-o", "new", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said["verdict"] == "passed"
    (step,) = said["passes"]
    assert step["name"] == "refit"
    assert len(step["sites"]) == 2
    found = run("refit", "out", *given, "--in-place")
    assert found.code == 0, found.err
    assert "kept as constants: interpolation/weights" in found.err
    member = next(s for s in open_bundle(shop / "out").manifest.sources if s.member == "linear")
    assert member.path == "later.safetensors"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["out", "--with", "absent", "-o", "new"], "out is not a folder"),
        ([".", "--with", "absent", "-o", "new"], "has no manifest.json"),
    ],
)
def test_a_mistake_is_one_line(run, shop, arguments, text):
    found = run("refit", *arguments)
    assert found.code == 1
    assert text in " ".join(found.err.split())
