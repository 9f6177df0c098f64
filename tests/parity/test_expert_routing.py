"""Where a token may go to other experts, what is then left out, and what is found all the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.parity.fakes import FakeRunner
from toolkit.artifacts import TensorSpec
from toolkit.feeds import Case
from toolkit.parity import OutputSpec, ParityOptions, ParityReport, prove
from toolkit.parity.compare import compare
from toolkit.parity.excuses import excess
from toolkit.parity.leaving_out import kept_of
from toolkit.parity.selections import Router, run_watched
from toolkit.parity.tallies import Tallies, thresholds
from toolkit.runtime import Choice, Watched

IDS = TensorSpec("ids", "int64", ("batch", "sequence"), low=0, high=8)
ROUTER = np.random.default_rng(5).standard_normal((8, 4)) + 3
# Token 7 all but ties between experts 1 and 2.
ROUTER[7] = [9.0, 5.0, 5.0 - 4e-7, 1.0]
EXPERTS = np.random.default_rng(6).standard_normal((4, 8, 6))


class Decoder(FakeRunner):
    """Each token to two of four experts; what it gives is the sum of all so far, in its row."""

    def __init__(self, name, dtype="float32", nudge=None, change=lambda y: y):
        super().__init__(name, lambda x: {})
        self.inputs = (IDS,)
        self._dtype, self._nudge, self._change = dtype, nudge, change

    def __call__(self, feeds):
        ids = feeds["ids"]
        scores = ROUTER.astype(self._dtype)
        if self._nudge is not None:
            scores = scores + np.asarray(self._nudge, self._dtype)
        scores = scores[ids.ravel()]
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, :2]
        said = EXPERTS.astype(self._dtype)[chosen, ids.reshape(-1, 1)].sum(1)
        logits = said.reshape(*ids.shape, -1).cumsum(axis=1)
        told = {
            Choice("", 0, "layer").name: chosen,
            Choice("", 0, "layer", 0, 2).name: scores.astype(np.float64),
        }
        return {"logits": self._change(logits), **told}


def watched(nudge=None, change=lambda y: y, **rest):
    """A candidate, and the file that it is a copy of."""
    made = [Decoder("graph", nudge=nudge, change=change) for _ in range(2)]

    class Plain(Decoder):
        def __call__(self, feeds):
            return {"logits": made[1](feeds)["logits"] + rest.get("shipped", 0)}

    choices = {one.name: [one] for one in (Choice("", 0, "layer"), Choice("", 0, "layer", 0, 2))}
    return Watched(made[0], Plain("graph"), choices)


def case(name, rows, mask=None):
    ids = np.array(rows)
    dims = {"batch": ids.shape[0], "sequence": ids.shape[1]}
    return Case(name, "random", dims, lambda: {"ids": ids})


CASES = (
    case("clear", [[0, 1, 2, 3], [4, 5, 6, 0]]),
    case("tied", [[0, 1, 7, 3], [4, 5, 6, 0]]),
    case("again", [[6, 5, 4, 3], [3, 2, 1, 0]]),
)
# What moves token 7's experts 1 and 2 by no more than float32 does, past each other.
TIE = np.zeros((8, 4))
TIE[7] = [0, -4e-7, 4e-7, 0]


def proof(candidate, cases=CASES, baselines=("float32",)) -> ParityReport:
    return prove(
        Decoder("numpy float64", "float64"),
        [Decoder(f"numpy {dtype}", dtype) for dtype in baselines],
        [candidate],
        cases,
        [OutputSpec("logits", "logits")],
        ParityOptions(causal=True, inputs=(IDS,)),
    )


def checks(report):
    return {check.gate: check for verdict in report.verdicts for check in verdict.checks}


def test_a_healthy_graph_sends_every_token_where_the_reference_does():
    report = proof(watched())
    report.raise_if_failed()
    (row,) = report.experts
    assert (row.layer, row.tokens, row.same, row.near_ties) == ("layer", 24, 24, 0)
    assert sum(row.load) == 48
    assert row.idle == row.load.count(0)
    again = ParityReport.from_json(report.to_json())
    assert again.experts == report.experts


def test_a_near_tie_is_left_out_with_what_reads_it_and_counted():
    report = proof(watched(TIE))
    report.raise_if_failed()
    (row,) = report.experts
    assert (row.same, row.near_ties, row.beyond) == (23, 1, 0)
    near = checks(report)["near ties"]
    assert near.measured == pytest.approx(2 / 24)  # the token, and the one behind it
    # Rows are counted without them: three cases of eight, less two.
    assert sum(found.rows for found in report.classes) == 22


@pytest.mark.parametrize(("row", "position", "seen"), [(0, 3, False), (0, 1, True), (1, 3, True)])
def test_only_what_reads_a_near_tie_is_left_out(row, position, seen):
    """A defect elsewhere is found: before the token, and in the other row."""

    def spoil(logits):
        if np.array_equal(logits.shape, (2, 4, 6)):
            logits[row, position] += np.float32(0.5)
        return logits

    tied = (CASES[1], case("long", [[0, 1, 2, 3, 4], [4, 5, 6, 0, 1]]))
    report = proof(watched(TIE, spoil), cases=tied)
    failing = {check.gate for verdict in report.verdicts for check in verdict.failures}
    assert ("max" in failing) == seen
    if seen:
        worst = report.worst[0]
        assert (worst.case, worst.index[:2]) == ("tied", (row, position))


def test_a_change_by_more_than_rounding_fails_and_names_case_and_layer():
    wrong = np.zeros((8, 4))
    wrong[5] = np.roll(ROUTER[5], 1) - ROUTER[5]
    report = proof(watched(wrong))
    check = checks(report)["experts"]
    assert check.status == "fail"
    assert check.measured == sum(row.beyond for row in report.experts) == 3
    assert "3 of 24 tokens go to other experts than in PyTorch, in layer by" in check.detail
    # Nothing is excused: outputs are compared and are wrong.
    assert checks(report)["max"].status == "fail"
    assert checks(report)["near ties"].measured == 0


def test_without_measured_scores_no_difference_is_excused():
    report = proof(watched(TIE), baselines=())
    assert checks(report)["experts"].status == "fail"
    assert "with no near tie" in checks(report)["experts"].detail


def test_a_token_that_pytorch_itself_sends_elsewhere_is_no_healthy_error():
    """Else its error, as large as an expert, would excuse the same everywhere."""
    report = prove(
        Decoder("numpy float64", "float64"),
        [Decoder("numpy float32", nudge=TIE)],
        [watched(change=lambda logits: logits * np.float32(1.01))],
        CASES,
        [OutputSpec("logits", "logits")],
        ParityOptions(causal=True, inputs=(IDS,)),
    )
    assert {"rms", "max"} <= {c.gate for v in report.verdicts for c in v.failures}
    assert max(row.max for row in report.healthy) < 1e-6


def test_too_many_near_ties_prove_nothing():
    report = proof(watched(TIE), cases=(case("all tied", [[7, 7, 7, 7]]),))
    assert checks(report)["near ties"].status == "fail"


def test_a_copy_that_computes_something_else_than_the_file_fails():
    assert checks(proof(watched()))["as shipped"].detail.endswith("gives the same bits")
    report = proof(watched(shipped=np.float32(0.01)))
    assert checks(report)["as shipped"].status == "fail"


def test_routers_that_cannot_be_paired_are_not_run():
    choice = Choice("", 0, "layer")
    graph = Decoder("graph")
    second = Watched(graph, graph, {choice.name: [choice, Choice("", 1, "layer")]})
    check = checks(proof(second))["experts"]
    assert check.status == "not run"
    assert "PyTorch shows 1 routers, the graph 2" in check.detail


def test_laws_are_tried_where_no_choice_hangs_on_rounding():
    report = proof(watched(), cases=(CASES[1],))
    found = checks(report)
    assert found["repeat"].status == "pass"
    assert found["row order"].status == "not run"
    assert found["row order"].detail == "in every case of two rows a choice hangs on rounding"


def test_choices_of_several_runs_are_joined_by_row_and_position():
    ids = np.array([[0, 1, 2], [3, 4, 5]])

    def drive(model, feeds):
        parts = [model({"ids": feeds["ids"][:, cut]}) for cut in (slice(0, 2), slice(2, 3))]
        assert all(set(part) == {"logits"} for part in parts)
        return parts[-1]

    whole = run_watched(Decoder("d"), Case("one", "decode", {}, lambda: {"ids": ids}))
    parts = run_watched(Decoder("d"), Case("two", "decode", {}, lambda: {"ids": ids}, drive))
    name = Choice("", 0, "layer").name
    assert whole[name].shape == (2, 3, 2)
    np.testing.assert_array_equal(parts[name], whole[name])


def router(scores, ids, **earlier):
    made = Router("layer", np.array(ids)[None, None])
    for number, (top, values) in enumerate([*earlier.values(), (len(ids), scores)]):
        made.selections[number] = top, np.array(values, float)[None, None]
    return made


def test_only_experts_whose_scores_are_near_may_change_places():
    found = router([3.0, 2.0, 2.0 - 1e-6, 1.0], [0, 1])
    change = partial(excess, found, token=(0, 0), experts=4, limits={0: 1e-5})
    assert change([0, 2]) == pytest.approx(0.1)
    assert change([2, 1]) > 1  # expert 0 is far above 2, though 1 and 2 are near each other
    assert change([0, 3]) > 1


def test_another_group_may_be_chosen_where_groups_are_near():
    scores = [3.0, 2.0, 1.5, 1.0, 0.0, 0.0]  # the last of three groups was shut
    near, far = ((2, [5.0, 2.5, 2.5 - 1e-6]), (2, [5.0, 2.5, 2.0]))
    limits = {0: 1e-5, 1: 1e-5}
    change = partial(excess, ids=[0, 4], token=(0, 0), experts=6, limits=limits)
    assert change(router(scores, [0, 2], groups=near)) == pytest.approx(0.1)
    assert change(router(scores, [0, 2], groups=far)) > 1


@pytest.mark.parametrize(
    ("shape", "causal", "kept"),
    [
        ((2, 4, 6), True, [[0, 1], [0, 1, 2, 3]]),
        ((2, 3, 7, 6), True, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]]),  # a cache of 3 before
        ((2, 2, 6), True, [[], [0, 1]]),  # the last two of four steps
        ((2, 4, 6), False, [[], [0, 1, 2, 3]]),
        ((2, 5), True, [[], [0, 1, 2, 3, 4]]),
    ],
)
def test_what_is_kept_of_outputs_and_where_it_lies(shape, causal, kept):
    out = np.zeros((2, 4), bool)
    out[0, 2:] = True
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    chosen = kept_of(array, out, causal=causal)
    axis = 2 if len(shape) == 4 else 1
    wanted = np.concatenate(
        [np.take(array[row], kept[row], axis=axis - 1).ravel() for row in range(2)]
    )
    assert sorted(chosen.of(array).ravel()) == sorted(wanted)
    # The worst place is named in the whole output.
    other = array.copy()
    spot = (1, *(size - 1 for size in shape[1:]))
    other[spot] += 1
    found = chosen.placed(compare(chosen.of(array), chosen.of(other), "values"))
    assert found.worst is not None
    assert found.worst.index == spot
    np.testing.assert_array_equal(chosen.filled(array, array), array)


def layer(*tokens):
    """A router of one row of tokens, each to the best of its scores."""
    scores = np.array([tokens], float)
    return Router("layer", scores.argmax(-1)[..., None], {0: (1, scores)})


def test_behind_a_changed_token_neither_choices_nor_scores_say_anything():
    """The second layer reads another context from position 1 on, and nothing before it."""
    first, second = ("", 0), ("", 1)
    wanted = {first: layer([1, 0], [1, 0.99], [1, 0]), second: layer([2, 0.5], [2, 0.5], [2, 0.5])}
    turned = {
        first: layer([1, 0], [0.99, 1], [1, 0]),
        second: layer([2, 0.501], [0.5, 9], [0.5, 9]),
    }
    valid = np.ones((1, 3), bool)
    baseline = Tallies(causal=True)
    out = baseline.add(wanted, turned, valid, "case")
    assert out is not None
    assert out.tolist() == [[False, True, True]]
    limits = thresholds([baseline])
    assert limits[first][0] == pytest.approx(4 * 0.01)
    assert limits[second][0] == pytest.approx(4 * 0.001)  # not 4 * 9
    graph = Tallies(causal=True, limits=limits)
    graph.add(wanted, turned, valid, "case")
    counts = {p: (t.same, t.near, t.beyond, t.behind) for p, t in graph.routers.items()}
    assert counts == {first: (2, 1, 0, 0), second: (1, 0, 0, 2)}
    whole = Tallies(causal=False, limits=limits).add(wanted, turned, valid, "case")
    assert whole is not None
    assert whole.all()
