"""``toolkit bench --server`` drives the real server, over both protocols."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.triton.server import PYTHON
from toolkit.bench import BenchOptions, Load, bench_server, open_subject
from toolkit.bench.load import parse_concurrency
from toolkit.cli import main
from toolkit.errors import CapabilityError, EngineError, ToolkitError

pytestmark = pytest.mark.triton

QUICK = BenchOptions(window=0.1, seconds=2.5)


def executions(server, name):
    """Requests that the server has counted."""
    _, content = server.get(f"v2/models/{name}/stats")
    (stats,) = json.loads(content)["model_stats"]
    return stats["inference_stats"]["success"]["count"]


def test_a_sweep_over_http_counts_what_the_server_counts(server, bundles):
    before = executions(server, "digits")
    load = Load(f"http://localhost:{server.http}", "digits:2", (1, 4), client="toolkit")
    found = bench_server(open_subject(bundles["digits"]), load, [{"batch": 3}], QUICK)
    assert [record.concurrency for record in found.loads] == [1, 4]
    for record in found.loads:
        assert (record.errors, record.client) == (0, "toolkit")
        p50, p90, p99 = (record.latency_ms[share][0] for share in ("p50", "p90", "p99"))
        assert 0 < p50 <= p90 <= p99
        # Little's law: requests in flight are their rate times their latency.
        assert record.requests_per_second * p50 / 1e3 < 1.5 * record.concurrency
        assert record.rows_per_second == pytest.approx(3 * record.requests_per_second)
    counted = sum(record.requests for record in found.loads)
    assert executions(server, "digits") - before >= counted > 20
    assert found.server == "digits:2 over http"


def test_a_decoder_over_grpc_with_an_interpreter_of_its_own(server, bundles, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main([
            "bench", str(bundles["experts"]), "--server", f"grpc://localhost:{server.grpc}",
            "--client-python", str(PYTHON), "--concurrency", "2", "--seconds", "3",
            "--shape", "batch=1,sequence=1,past_sequence=4", "-o", str(tmp_path), "--json",
        ])  # fmt: skip
    assert stop.value.code == 0
    (record,) = json.loads(capsys.readouterr().out)["loads"]
    assert (record["client"], record["errors"]) == ("tritonclient", 0)
    assert record["requests"] > 5
    assert record["dims"] == {"batch": 1, "sequence": 1, "past_sequence": 4}
    page = (tmp_path / "bench.html").read_text()
    assert "<h2>Under load</h2>" in page
    assert "experts over grpc" in page


def test_errors_are_counted_and_nothing_but_errors_is_one(server, bundles):
    subject = open_subject(bundles["encoder"])
    wide = replace(subject, shapes={})  # a batch that the server does not take
    load = Load(f"http://localhost:{server.http}", "encoder", (1,), client="toolkit")
    with pytest.raises(EngineError, match=r"gave no answer: HTTP 400.*batch-size must be <= 4"):
        bench_server(wide, load, [{"batch": 9, "sequence": 3}], QUICK)


def test_what_is_not_there_is_said_with_what_is(server, bundles):
    subject = open_subject(bundles["digits"])
    url = f"http://localhost:{server.http}"
    with pytest.raises(EngineError, match="no model digits:7 that is ready") as found:
        bench_server(subject, Load(url, "digits:7"), [], QUICK)
    assert "digits:2" in found.value.hint
    with pytest.raises(CapabilityError, match="has no tritonclient for gRPC") as missing:
        bench_server(subject, Load(f"grpc://localhost:{server.grpc}"), [], QUICK)
    assert "--client-python" in missing.value.hint
    with pytest.raises(ToolkitError, match="--client tritonclient does not speak http here"):
        bench_server(subject, Load(url, client="tritonclient"), [], QUICK)
    with pytest.raises(ToolkitError, match="found the concurrency '1,x'"):
        parse_concurrency("1,x")
