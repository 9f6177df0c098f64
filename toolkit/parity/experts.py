"""Experts as a proof sees them: the same ones chosen, near ties counted, who is busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.feeds import Case
from toolkit.parity.compare import compare
from toolkit.parity.excuses import SHUT, margin
from toolkit.parity.loads import ExpertRouting
from toolkit.parity.options import OutputSpec, Precision
from toolkit.parity.results import Check, Status, Verdict
from toolkit.parity.selections import routers_in
from toolkit.parity.store import OutputStore
from toolkit.parity.tallies import Tallies, Tally
from toolkit.runtime.base import Outputs
from toolkit.runtime.choices import Watched

__all__ = ["expert_routing", "judge_experts", "near_cases", "shipped_check"]

# With more of the tokens left out than this, too little of the outputs would be proven.
_MOST = 0.5
# Laws are tried where no selection is nearer than this many roundings of the largest score.
_CLEAR = 4.0
_EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_ALIKE = 4.0  # roundings by which the file may leave the copy that shows its choices


def near_cases(store: OutputStore, count: int, precision: Precision) -> frozenset[int]:
    """Indices of the cases in which a selection of the reference hangs on rounding.

    The same rows in another order or number may then go to other experts, and a law that compares
    the two says nothing.
    """
    return frozenset(index for index in range(count) if _is_near(store, index, precision))


def _is_near(store: OutputStore, index: int, precision: Precision) -> bool:
    for router in routers_in(store.case(index)).values():
        for top, scores in router.selections.values():
            open_to = np.abs(scores[scores > SHUT])
            least = _CLEAR * _EPS[precision] * float(open_to.max(initial=0.0))
            if margin(scores, top).min(initial=np.inf) <= least:
                return True
    return False


def expert_routing(candidate: str, tallies: Tallies) -> Iterator[ExpertRouting]:
    """What is reported of each router."""
    for (member, _), tally in tallies.routers.items():
        mean = tally.load.mean()
        yield ExpertRouting(
            candidate=candidate,
            layer=f"{member}/{tally.layer}" if member else tally.layer,
            experts=tally.experts,
            k=tally.k,
            tokens=tally.tokens,
            same=tally.same,
            near_ties=tally.near,
            beyond=tally.beyond,
            behind=tally.behind,
            load=tuple(tally.load.tolist()),
            reference_load=tuple(tally.wanted.tolist()),
            imbalance=float(tally.load.max() / mean) if mean else 0.0,
            idle=int((tally.load == 0).sum()),
            idle_cases=tally.idle,
            single_cases=tally.single,
        )


def judge_experts(candidate: str, tallies: Tallies, shipped: Check | None) -> list[Verdict]:
    """The checks of a candidate's routing; none where there is none to see."""
    checks = [] if shipped is None else [shipped]
    if tallies.mismatch:
        reason = f"the routing of experts was not observed: {tallies.mismatch}"
        checks.append(Check("G3", "experts", "not run", 0.0, 0.0, "", reason))
    elif tallies.routers:
        every = list(tallies.routers.values())
        checks += [_same(every), _near(every, tallies)]
    return [Verdict(candidate, "", "values", tuple(checks))] if checks else []


def _same(every: Sequence[Tally]) -> Check:
    tokens, wrong = sum(one.tokens for one in every), sum(one.beyond for one in every)
    if not wrong:
        same = sum(one.same for one in every)
        detail = f"the same experts for {same} of {tokens} tokens, counted for each layer"
        detail += "; the others hang on near ties" if same < tokens else ""
        return Check("G3", "experts", "pass", 0.0, 0.0, "", detail)
    worst = max(every, key=lambda one: one.worst[0])
    times, case = worst.worst
    far = f"by {times:.3g} times what rounding may turn" if times < np.inf else "with no near tie"
    detail = (
        f"{wrong} of {tokens} tokens go to other experts than in PyTorch, in {worst.layer} {far}"
    )
    return Check("G3", "experts", "fail", float(wrong), 0.0, case, detail)


def _near(every: Sequence[Tally], tallies: Tallies) -> Check:
    share = tallies.left_out / max(tallies.tokens, 1)
    near = sum(one.near for one in every)
    detail = (
        f"{near} {'choice hangs' if near == 1 else 'choices hang'} on a near tie of a router;"
        f" {tallies.left_out} of {tallies.tokens} tokens are these or read one, and are not"
        " compared"
    )
    return Check("G3", "near ties", "pass" if share <= _MOST else "fail", share, _MOST, "", detail)


def shipped_check(
    watched: Watched,
    found: Outputs,
    case: Case,
    outputs: Sequence[OutputSpec],
    precision: Precision,
) -> Check:
    """Whether the very file gives what its copy gave, in which routers' choices are outputs too.

    Args:
        watched: Left, so that one model is in memory at a time.
        found: What the copy gave for ``case``.
        case: One run.
        outputs: What is compared.
        precision: Of the graph.
    """
    with watched.shipped as run:
        own = case.run(run)
    worst, limit = 0.0, _ALIKE * _EPS[precision]
    for output in outputs:
        wanted, given = found[output.name], own[output.name]
        if wanted.tobytes() != given.tobytes():
            worst = max(worst, compare(wanted, given, "values", precision).rms)
    said = f"leaves it by {worst:.2e}" if worst else "gives the same bits"
    detail = f"the file without outputs for its routing {said}"
    status: Status = "pass" if worst <= limit else "fail"
    return Check("G3", "as shipped", status, worst, limit, case.name, detail)
