"""Seeded inputs for proofs and timings, made from tensor specifications and shape ranges."""

from toolkit.feeds.caches import Caches, caches_of
from toolkit.feeds.cases import Case, cases
from toolkit.feeds.fills import Fill, make_feeds
from toolkit.feeds.real import real_cases

__all__ = [
    "Caches",
    "Case",
    "Fill",
    "caches_of",
    "cases",
    "make_feeds",
    "real_cases",
]
