"""Proof that what ships computes what PyTorch computes.

``prove`` runs the reference (the recipe's meaning in float64), the baseline (the same in float32,
which shows how large a healthy error is) and every candidate over the same cases, and returns a
``ParityReport``: a value, not an exception, with every number and the bound it was held against.
"""

from toolkit.parity.decode import decode_cases
from toolkit.parity.joining import joined
from toolkit.parity.options import OutputSpec, ParityOptions, Precision, Space, Structure, Tolerance
from toolkit.parity.prove import prove
from toolkit.parity.quantised import QuantisedBudget, prove_quantised
from toolkit.parity.results import (
    Check,
    ClassResult,
    ParityReport,
    RunCase,
    Verdict,
    WorstCase,
)
from toolkit.parity.static import check_files, hash_files
from toolkit.parity.wire import schema

__all__ = [
    "Check",
    "ClassResult",
    "OutputSpec",
    "ParityOptions",
    "ParityReport",
    "Precision",
    "QuantisedBudget",
    "RunCase",
    "Space",
    "Structure",
    "Tolerance",
    "Verdict",
    "WorstCase",
    "check_files",
    "decode_cases",
    "hash_files",
    "joined",
    "prove",
    "prove_quantised",
    "schema",
]
