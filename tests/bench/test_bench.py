"""Graphs that are measured for real: what is more work is slower, what is large takes memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.bench.graphs import products
from tests.workshop import write_recipe, write_workshop
from toolkit.bench import (
    BenchOptions,
    Measurer,
    Side,
    bench,
    compare,
    compare_graphs,
    open_subject,
    points_of,
    read_result,
)
from toolkit.bench.sessions import Job
from toolkit.bench.subject import job_of
from toolkit.bundle import open_bundle
from toolkit.cli import main
from toolkit.errors import ToolkitError
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe
from toolkit.report import render_bench

QUICK = BenchOptions(threads=1, warmup=0.02, window=0.05, seconds=0.6, margin=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def bundle(folder):
    shop = write_workshop(folder / "shop")
    recipe = load_recipe(write_recipe(shop), allow_code=True)
    export_recipe(recipe, shop, folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def measurer():
    with Measurer(QUICK) as started:
        yield started


def test_ten_times_the_work_is_slower_and_the_same_work_is_not(folder, measurer):
    light, heavy, again = (
        open_subject(products(folder / f"{name}.onnx", count))
        for name, count in (("light", 2), ("heavy", 20), ("again", 2))
    )
    points = points_of(light, [{"batch": 64}])
    (ratio,) = compare_graphs(heavy, Side("light", (light,)), points, measurer)
    assert ratio.verdict == "slower"
    assert 3 < ratio.ratio[1] <= ratio.ratio[0]
    assert ratio.rounds >= 3
    (ratio,) = compare_graphs(light, Side("heavy", (heavy,)), points, measurer)
    assert ratio.verdict == "faster"
    (ratio,) = compare_graphs(light, Side("again", (again,)), points, measurer)
    assert ratio.verdict in {"no difference", "undecided"}


def test_members_run_one_after_another(folder):
    whole = open_subject(products(folder / "whole.onnx", 8, width=128))
    parts = [open_subject(products(folder / f"p{i}.onnx", 8, width=128)) for i in range(3)]
    found = bench(whole, [{"batch": 64}], QUICK, Side("its members", tuple(parts)))
    (ratio,) = found.ratios
    assert ratio.ratio[0] == pytest.approx(1 / 3, rel=0.3)
    (point,) = found.points
    assert point.rows == 64
    assert point.rows_per_second == pytest.approx(64 * point.runs_per_second)
    low, high = point.latency_ms["p50"][1:]
    assert low <= point.latency_ms["p50"][0] <= high


def test_memory_of_a_point_is_its_own(folder, measurer):
    wide = open_subject(products(folder / "wide.onnx", 2, width=2048))  # 34 MB of weights
    narrow = open_subject(products(folder / "narrow.onnx", 1))
    many, one, alone = (
        measurer.time(job_of(subject, {"batch": rows}, 0), "cpu").memory
        for subject, rows in ((narrow, 1 << 18), (narrow, 1), (wide, 1))
    )
    assert 25e6 < alone.loaded - one.loaded < 80e6
    assert many.running > 60e6  # 2 ** 18 x 64 floats come out
    assert one.running < 20e6


def test_a_graph_that_does_not_run_is_one_message(folder, measurer):
    path = products(folder / "refused.onnx", 1)
    job = Job(path, {"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(ToolkitError, match=r"cannot be run: .*invalid dimensions"):
        measurer.time(job, "cpu")
    path.write_bytes(b"no graph")
    with pytest.raises(ToolkitError, match=r"ONNX Runtime refuses refused\.onnx"):
        measurer.time(job, "cpu")


def test_saved_results_are_compared_and_one_of_them_with_a_graph(folder):
    light, heavy = products(folder / "l.onnx", 2), products(folder / "h.onnx", 20)
    saved = folder / "l.json"
    bench(open_subject(light), [{"batch": 64}], QUICK).write(saved)
    found = compare(heavy, saved, [], QUICK)  # at the saved result's points
    assert found.ratios[0].verdict == "slower"
    assert found.ratios[0].dims == {"batch": 64}
    assert "measured at different times" in found.notes[0]
    assert compare(saved, saved, [], QUICK).ratios[0].verdict == "no difference"
    nothing = folder / "nothing.json"
    read_result(saved).model_copy(update={"points": ()}).write(nothing)
    with pytest.raises(ToolkitError, match="at no point in common"):
        compare(saved, nothing, [], QUICK)


def test_a_bundle_against_its_members_and_what_is_saved(bundle, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(bundle), "--members", "--allow-code", "--seconds", "0.3",
              "--threads", "1", "--shape", "batch=3", "--json"])  # fmt: skip
    assert stop.value.code == 0
    said = json.loads(capsys.readouterr().out)
    (ratio,) = said["ratios"]
    assert (ratio["first"], ratio["second"], ratio["dims"]) == (
        "bundle", "its members", {"batch": 3},
    )  # fmt: skip
    out = bundle.with_name("bundle.bench")
    assert {path.name for path in out.iterdir()} == {"bench.json", "bench.html"}
    assert read_result(out / "bench.json").points[0].samples_ms
    assert open_bundle(bundle)  # nothing was put into it
    page = (out / "bench.html").read_text()
    assert page == render_bench(read_result(out / "bench.json").data())
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http-equiv" in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{bundle}", "--runtime", "gpu"], 1, "unknown runtime 'gpu'"),
        (["{bundle}", "--runtime", "tensorrt-rtx"], 4, "the runtime tensorrt-rtx needs"),
        (["{bundle}", "-o", "{bundle}/results"], 1, "is in the bundle bundle"),
        (["{bundle}", "--compare", "a", "b"], 2, "wanted PATH, or --compare A B"),
        (["nowhere.onnx"], 1, "nowhere.onnx is not there, wanted a bundle or an .onnx file"),
        (["--compare", "{bundle}", "{bundle}/parity.json"], 1, "is no result of toolkit bench"),
        (
            ["{bundle}", "--server", "localhost"],
            1,
            "wanted http://localhost:8000 or grpc://localhost:8001",
        ),
        (["{bundle}", "--server", "http://localhost:1"], 1, "no server answers at localhost:1"),
    ],
)
def test_a_mistake_is_one_line(bundle, capsys, arguments, code, said):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *(word.format(bundle=bundle) for word in arguments)])
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
