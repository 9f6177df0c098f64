"""Holds what the laws found against what they found for PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.parity.compare import Deviation
from toolkit.parity.laws import LAWS, LawFindings
from toolkit.parity.limits import Limits
from toolkit.parity.measure import Broken
from toolkit.parity.options import Tolerance
from toolkit.parity.results import Check, Gate, Verdict

__all__ = ["judge_laws"]

_CHANGED = {
    "repeat": "a second run of the same inputs",
    "identical rows": "the place of a row in a batch of identical rows",
    "row order": "the order of the rows",
    "one row": "the number of rows",
    "padding content": "what stands under the padding",
    "padding length": "the length of the padding",
}


def judge_laws(  # noqa: PLR0913, PLR0917  (each is a different thing, and all are needed)
    candidate: str,
    found: LawFindings,
    healthy: Sequence[LawFindings],
    limits: Mapping[str, Limits],
    case: str,
    tolerance: Tolerance,
) -> Verdict:
    """One check for each law, of the output nearest to its limit.

    Args:
        candidate: The runner's name.
        found: What it did.
        healthy: What the baselines did.
        limits: The error each output is allowed in the case that was tried.
        case: That case's name.
        tolerance: The bounds.
    """
    checks = [
        _judge(gate, found[gate], [one[gate] for one in healthy], limits, case, tolerance)
        for gate in LAWS
    ]
    return Verdict(candidate, "", "values", tuple(checks))


def _judge(  # noqa: PLR0913, PLR0917
    gate: Gate,
    found: Mapping[str, Deviation] | Broken | str,
    healthy: Sequence[Mapping[str, Deviation] | Broken | str],
    limits: Mapping[str, Limits],
    case: str,
    tolerance: Tolerance,
) -> Check:
    if isinstance(found, str):
        return Check("G4", gate, "not run", 0.0, 0.0, "", found)
    if any(isinstance(one, Broken) for one in healthy):
        return _lawless(gate)
    if isinstance(found, Broken):
        return Check("G4", gate, "fail", 1.0, 0.0, case, f"it cannot be run: {found.reason}")
    usual = [one for one in healthy if isinstance(one, Mapping)]
    if gate == "repeat":
        return _repeated(found, case)
    held = []
    for name, deviation in found.items():
        if any(_gross(one[name], tolerance) for one in usual if name in one) or name not in limits:
            continue
        limit = _limits(name, usual, limits[name], tolerance)
        held += [(deviation.max, limit.max, name, deviation)]
        if limit.rms is not None:
            held += [(deviation.rms, limit.rms, name, deviation)]
    return _worst(gate, held, case) if held else _lawless(gate)


def _worst(gate: Gate, held: list[tuple[float, float, str, Deviation]], case: str) -> Check:
    broken = [one for one in held if one[3].mismatches]
    measured, limit, name, deviation = max(broken or held, key=lambda one: _over(one[0], one[1]))
    if broken:
        detail = f"{name}: {_CHANGED[gate]} makes {deviation.mismatches} values not comparable"
        return Check("G4", gate, "fail", float(deviation.mismatches), 0.0, case, detail)
    passed = measured <= limit
    detail = (
        f"{name}: {_CHANGED[gate]} changes it by {measured:.2e}, {'within' if passed else 'over'}"
        f" the limit {limit:.2e}"
    )
    return Check("G4", gate, "pass" if passed else "fail", measured, limit, case, detail)


def _over(measured: float, limit: float) -> float:
    return measured / limit if limit > 0 else measured * 1e300


def _repeated(found: Mapping[str, Deviation], case: str) -> Check:
    name, deviation = max(found.items(), key=lambda pair: pair[1].max)
    if deviation.max == 0:
        return Check("G4", "repeat", "pass", 0.0, 0.0, "", "a second run gives the same bits")
    detail = f"{name}: a second run gives {deviation.max:.0f} of {deviation.n} values other bits"
    return Check("G4", "repeat", "fail", deviation.max, 0.0, case, detail)


def _limits(
    name: str, usual: Sequence[Mapping[str, Deviation]], limit: Limits, tolerance: Tolerance
) -> Limits:
    """The error of the case, or PyTorch's own unlawfulness several times over if that is more."""
    own = [one[name] for one in usual if name in one]
    largest = max([limit.max, *(tolerance.max_ratio * one.max for one in own)])
    if limit.rms is None:
        return Limits(None, largest)
    return Limits(max([limit.rms, *(tolerance.rms_ratio * one.rms for one in own)]), largest)


def _gross(deviation: Deviation, tolerance: Tolerance) -> bool:
    """Whether PyTorch itself does not obey: rounding of any precision is far below this."""
    return deviation.mismatches > 0 or deviation.rms > 1e3 * max(
        deviation.eps, tolerance.max_relative * 1e-3
    )


def _lawless(gate: Gate) -> Check:
    reason = f"PyTorch's own answer depends on {_CHANGED[gate]}"
    return Check("G4", gate, "not run", 0.0, 0.0, "", reason)
