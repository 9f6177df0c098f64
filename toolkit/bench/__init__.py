"""How fast a bundle is: latency, rate and memory, alone, against others, and behind a server."""

from toolkit.bench.bench import Side, bench, compare_graphs
from toolkit.bench.compare import compare
from toolkit.bench.load import Load, bench_server, parse_concurrency
from toolkit.bench.options import BenchOptions
from toolkit.bench.points import Point, parse_shape, points_of
from toolkit.bench.process import Measurer
from toolkit.bench.results import (
    BenchResult,
    LoadRecord,
    PointRecord,
    RatioRecord,
    check_out,
    read_result,
)
from toolkit.bench.subject import Subject, member_subject, open_subject

__all__ = [
    "BenchOptions",
    "BenchResult",
    "Load",
    "LoadRecord",
    "Measurer",
    "Point",
    "PointRecord",
    "RatioRecord",
    "Side",
    "Subject",
    "bench",
    "bench_server",
    "check_out",
    "compare",
    "compare_graphs",
    "member_subject",
    "open_subject",
    "parse_concurrency",
    "parse_shape",
    "points_of",
    "read_result",
]
