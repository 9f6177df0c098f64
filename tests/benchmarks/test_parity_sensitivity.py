"""What the sensitivity benchmark says of outcomes."""

from __future__ import annotations

import numpy as np

from benchmarks.parity_sensitivity import missed, summary
from benchmarks.peers import PEERS, simple_verdicts
from benchmarks.planting import Outcome
from benchmarks.rows import Row, cells, headings


def outcome(change=50.0, detected=True, kind="bias dropped", localised=None):
    peers = dict.fromkeys(PEERS, False)
    return Outcome("encoder", kind, "here", change, detected, "rms", peers, localised, "there")


def by_metric(outcomes):
    return {row.metric: row for row in summary(outcomes)}


def test_a_class_holds_the_faults_of_its_size():
    rows = by_metric([outcome(0.5), outcome(50.0), outcome(50.0, detected=False)])
    assert rows["encoder: 1 faults < 1 x, found"].value == 100
    assert rows["encoder: 2 faults 10-100 x, found"].value == 50
    assert rows["encoder: 2 faults 10-100 x, found"].beside == dict.fromkeys(PEERS, 0)


def test_a_fault_that_breaks_the_graph_is_in_the_largest_class():
    assert by_metric([outcome(float("inf"))])["encoder: 1 faults > 100 x, found"].value == 100


def test_one_miss_over_a_hundred_breaks_the_bound():
    rows = by_metric([outcome(1e6)] * 199 + [outcome(1e6, detected=False)])
    assert rows["all: 200 faults over 10 x, found"].holds
    assert not rows["all: 200 faults over 100 x, found"].holds


def test_one_false_alarm_breaks_the_bound():
    rows = by_metric([outcome(), outcome(0.0, kind="healthy")])
    assert not rows["false alarms on 1 healthy graphs"].holds


def test_every_miss_false_alarm_and_wrong_place_is_told():
    lines = missed([
        outcome(50.0, detected=False),
        outcome(5.0, detected=False),
        outcome(0.0, kind="healthy"),
        outcome(localised=False),
    ])  # fmt: skip
    assert lines == [
        "missed: encoder: bias dropped at here, 50 x: rms",
        "false alarm: encoder, here: rms",
        "elsewhere: encoder: bias dropped at here, 50 x: named there",
    ]


def test_rules_of_peers_have_their_own_tolerances():
    right = [{"x": np.array([1.0, 2.0, -1.0])}]
    off = [{"x": right[0]["x"] * 1.0005}]
    assert simple_verdicts(right, off) == {PEERS[0]: True, PEERS[2]: False, PEERS[3]: False}
    assert all(simple_verdicts(right, [{"x": -right[0]["x"]}]).values())
    assert all(simple_verdicts(right, None).values())
    assert all(simple_verdicts(right, [{"x": np.ones(2)}]).values())


def test_a_floor_and_peers_are_shown_in_columns_of_their_own():
    rows = [Row("found", 98.0, "%", floor=99, beside={"peer": 12.0}), Row("plain", 1.0, "x")]
    assert headings(rows)[-1] == "peer"
    assert cells(rows)[0] == ("found", "98.0", "", "%", ">= 99", "NO", "12.0")
    assert cells(rows)[1][-1] == ""
