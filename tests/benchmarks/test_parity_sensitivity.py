"""What the sensitivity benchmark says of outcomes."""

from __future__ import annotations

import numpy as np

from benchmarks import planting
from benchmarks.families import Size
from benchmarks.parity_sensitivity import missed, summary
from benchmarks.peers import PEERS, simple_verdicts
from benchmarks.planting import Outcome, check_healthy, export_family, plant_faults
from benchmarks.proofs import Remembering, digest
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


class Counting:
    """A runner that doubles and counts."""

    name, inputs, runs, entered = "counting", (), 0, 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        return None

    def __call__(self, feeds):
        self.runs += 1
        return {"y": feeds["x"] * 2}


def test_what_was_answered_once_is_not_run_again():
    counting = Counting()
    for _ in range(2):
        with Remembering(counting) as runner:
            for value in (1.0, 2.0, 1.0):
                assert runner({"x": np.array([value])})["y"] == [2 * value]
    assert (counting.runs, counting.entered) == (4, 2)
    with runner as again:
        again({"x": np.array([1.0])})
    assert (counting.runs, counting.entered) == (4, 2)


def test_inputs_of_another_dtype_or_shape_are_other_inputs():
    one = np.zeros(2, np.float32)
    assert digest({"x": one}) == digest({"x": one.copy()})
    assert digest({"x": one}) != digest({"x": one.astype(np.int32)})
    assert digest({"x": one}) != digest({"x": one.reshape(1, 2)})
    assert digest({"x": one}) != digest({"y": one})


def test_a_healthy_graph_passes_with_new_weights_and_a_faulty_one_does_not(tmp_path, monkeypatch):
    # its environment would be installed first
    monkeypatch.setattr(planting, "polygraphy_verdicts", lambda answers: [True] * len(answers))
    folder = tmp_path / "graph"
    folder.mkdir()
    export_family("linear ensemble", folder, 3, Size(2))
    [healthy] = check_healthy("linear ensemble", folder, [1000], Size(2))
    assert not healthy.detected, healthy.why
    assert healthy.change == 0
    [fault] = plant_faults(
        "linear ensemble", folder, [("interpolation weight off by 1 %", 0)], set()
    )
    assert fault.detected
    assert fault.change > 100
