"""What the engine stage calls, on a double that has the real names and no others."""

from __future__ import annotations

import pytest

from tests.tensorrt_stubs.misspelling import mutants, survives
from tests.tensorrt_stubs.playing import Code
from tests.tensorrt_stubs.scenarios import SCENARIOS, SOURCES
from toolkit.engine import (
    configuring,
    diagnosis,
    network,
    opening,
    plugging,
    readback,
    timing,
    worker,
)

REAL = Code(
    network=network, worker=worker, diagnosis=diagnosis, configuring=configuring,
    readback=readback, timing=timing, plugging=plugging, opening=opening,
)  # fmt: skip
# What ``network`` takes from each of the others.
TAKEN = {
    "diagnosis": "parser_message", "configuring": "configure", "readback": "network_facts",
    "timing": "attach_cache", "plugging": "load_plugins",
}  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__[1:])
def test_every_flavour_and_major_is_told_the_same_in_its_own_words(scenario):
    scenario(REAL)


def test_no_name_can_be_misspelled_unseen(monkeypatch):
    tried: list[str] = []
    unseen: list[str] = []
    for name in SOURCES:
        for word, module in mutants(SOURCES[name], f"toolkit.engine.{name}_misspelled"):
            tried.append(word)
            code = Code(**{**vars(REAL), name: module})
            with monkeypatch.context() as patched:
                if name in TAKEN:
                    patched.setattr(network, TAKEN[name], getattr(module, TAKEN[name]))
                if survives(SCENARIOS, code):
                    unseen.append(f"{name}: {word}")
    assert unseen == []
    assert len(tried) >= 110
    assert {
        "STRONGLY_TYPED",
        "clear_flag",
        "set_shape",
        "phase_start",
        "desc",
        "combine",
        "get_shape",
        "INPUT",
    } <= set(tried)
