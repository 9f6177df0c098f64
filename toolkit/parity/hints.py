"""What to look at when a check of a proof fails."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["hint_of"]


def hint_of(gate: str, level: str) -> str:
    """For a gate, or where there is none for it alone, for its level."""
    return _GATES.get(gate, _LEVELS[level])


_LEVELS: Mapping[str, str] = {
    "G0": "the file is not what a bundle may hold; export it again",
    "G1": "what differs is the computation, not its rounding",
    "G2": "the graph loses more to rounding than PyTorch does in the same precision: look for sums"
    " and norms that PyTorch keeps in float32",
    "G3": "the answers differ where they should not; compare the members one by one",
    "G4": "PyTorch obeys this law and the graph does not: look for an axis or a size that the"
    " export fixed, a mask that is ignored, or a broadcast over the batch",
}

_QUANTISED = "keep nodes (export.keep_float32), calibrate on more, or widen parity.quantised"
_GATES: Mapping[str, str] = {
    "ran": "the exported graph does not accept a shape the recipe promises: look at dimensions"
    " that the export fixed",
    "finite": "look for a masked or vetoed position, a logarithm of zero or an overflow",
    "rms": "an error this far above float32 rounding is a different computation, not a loss of"
    " precision; compare the members one by one",
    "max": "a few elements are wrong and most are right: look at the index, a mask or an edge"
    " of a shape range",
    "choice": "a clear decision changed: compare the order of the classes",
    "agreement": _QUANTISED,
    "mean divergence": _QUANTISED,
    "error": _QUANTISED,
    "routing": "the gate says nearly the same of several members for most inputs: train it, or"
    " leave top_k out",
    "experts": "the graph's router is not PyTorch's: look at its weights, its correction bias and"
    " its groups; --explain names the first node that differs",
    "near ties": "the router says nearly the same of several experts for most tokens, so that"
    " rounding decides: train it, or export in float32",
    "as shipped": "what is seen of the routing is not what the file computes",
}
