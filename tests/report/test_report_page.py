"""The page: verdict in words first, every number, nothing from outside, nothing unescaped."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.parity.fakes import (
    FakeRunner,
    altered,
    baseline,
    candidate,
    reference,
    some_cases,
)
from toolkit.parity import OutputSpec, prove
from toolkit.report import FileEntry, Member, ReportContext, Table, render_report, write_report

EVIL = "<script>alert('x')</script>\"onload=\\1"


def proof(*candidates, name="logits", base=True):
    outputs = (OutputSpec(name, "logits"),)
    report = prove(reference(), [baseline()] if base else [], candidates, some_cases(2), outputs)
    return json.loads(report.to_json())


@pytest.fixture(scope="module")
def healthy():
    return proof(candidate(), candidate(name="second"))


@pytest.fixture(scope="module")
def faulty():
    return proof(altered(lambda x, y: y * np.float32(1.01)))


@pytest.fixture(scope="module")
def page(healthy):
    return render_report(ReportContext("digits", healthy))


def test_a_decode_is_drawn_step_by_step(healthy):
    steps = {"candidate": "candidate", "output": "logits", "case": "decode 3 steps"}
    row = {**steps, "errors": [1e-7, 0.0, 3e-7], "baseline": [1e-7, 2e-7, 1e-7]}
    page = render_report(ReportContext("digits", {**healthy, "steps": [row]}))
    assert "Step by step" in page
    assert 'aria-label="Errors of logits in decode 3 steps"' in page
    assert "Step by step" not in render_report(ReportContext("digits", healthy))


def test_routing_is_a_table_and_a_figure_for_each_layer(healthy):
    row = {
        "candidate": "candidate", "layer": "layers.0<b>", "experts": 4, "k": 2, "tokens": 100,
        "same": 97, "near_ties": 2, "beyond": 1, "behind": 0, "load": [90, 60, 50, 0],
        "reference_load": [91, 59, 50, 0], "imbalance": 1.8, "idle": 1, "idle_cases": 3,
        "single_cases": 2,
    }  # fmt: skip
    page = render_report(ReportContext("digits", {**healthy, "experts": [row]}))
    assert "<h2>Routing</h2>" in page
    assert 'aria-label="Load of the experts of layers.0&lt;b&gt;"' in page
    assert re.search(r"the busiest has 1\.80\s×\s+the mean; 1 expert no token chose", page)
    assert re.search(r"<td>97\.00\s%</td><td>2</td><td><span class=\"over\">1</span></td>", page)
    assert "<h2>Routing</h2>" not in render_report(ReportContext("digits", healthy))


class Elements(HTMLParser):
    """Start tags with their attributes, and the text outside style elements."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "path", "use"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"path", "use"}:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def test_a_pass_says_so_in_words_before_any_number(page):
    text = Elements(page).text
    body = text[text.index("digits · parity report", 40) :]
    assert body.index("✓ Pass") < body.index("Largest error")
    assert "every output stayed within its error budget in all" in body
    assert "Fail" not in body


def test_a_failure_names_output_numbers_and_case_in_the_verdict(faulty):
    page = render_report(ReportContext("digits", faulty))
    text = re.sub(r"\s+", " ", Elements(page).text)
    verdict = text[text.index("✗ Fail") : text.index("Largest error")]
    assert "does not compute what PyTorch computes. 1 of 1 output failed" in verdict
    assert re.search(
        r"logits in altered: root mean square error 1\.00e-02 of the output's scale,"
        r" over the limit \d\.\d\de-07 \(PyTorch's own error is \d\.\d\de-\d\d\) — ",
        verdict,
    )


def test_elements_nest_and_ids_are_unique(page):
    parsed = Elements(page)
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_and_nothing_runs(page):
    names = {tag for tag, _ in Elements(page).tags}
    assert not names & {"script", "iframe", "img", "object", "embed", "form", "base"}
    for tag, attributes in Elements(page).tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_names_from_a_stranger_are_text():
    outputs = (OutputSpec(EVIL, "logits"),)

    def renamed(runner):
        return FakeRunner(EVIL + runner.name, lambda x: {EVIL: runner({"x": x})["logits"]})

    wrong = altered(lambda x, y: y + np.float32(1))
    report = prove(
        renamed(reference()), [renamed(baseline())], [renamed(wrong)], some_cases(0), outputs
    )
    context = ReportContext(
        EVIL,
        json.loads(report.to_json()),
        Member(EVIL, EVIL, None, (Member(EVIL, EVIL, 0.5),)),
        (EVIL,),
        {EVIL: EVIL},
        (FileEntry(EVIL, 3, EVIL),),
        (Table(EVIL, (EVIL,), ((EVIL,),), EVIL),),
    )
    page = render_report(context)
    assert "<script" not in page
    parsed = Elements(page)
    assert parsed.open == []
    assert parsed.text.count(EVIL) >= 20
    assert not any(name.startswith("on") for _, found in parsed.tags for name in found)


def test_what_a_runtime_says_is_text():
    def broken(x, y):
        raise RuntimeError(EVIL)

    page = render_report(ReportContext("digits", proof(altered(broken))))
    assert "<script" not in page
    assert EVIL in Elements(page).text


def test_failed_outputs_come_first():
    wrong = altered(lambda x, y: y + np.float32(1), name="wrong")
    text = Elements(render_report(ReportContext("d", proof(candidate(), wrong)))).text
    checks = text[text.index("Checks") : text.index("Errors against the budget")]
    assert checks.index("wrong") < checks.index("candidate")


def test_the_page_shows_models_tables_files_lineage_and_versions(healthy):
    context = ReportContext(
        "digits",
        healthy,
        Member(
            "digits", "linear", None, (Member("cnn", "factory", 0.625), Member("mlp", "", 0.375))
        ),
        ("cnn.safetensors sha256 77",),
        {"torch": "2.13.0"},
        (FileEntry("model.onnx", 1830021, "ab" * 32),),
        (Table("Accuracy", ("", "PyTorch"), (("cnn", "96.2 %"),), "held out"),),
    )
    text = Elements(render_report(context)).text
    for part in (
        "× 0.625", "cnn", "mlp", "cnn.safetensors sha256 77", "2.13.0", "model.onnx", "1.8 MB",
        "ab" * 32, "Accuracy", "96.2 %", "held out",
    ):  # fmt: skip
        assert part in text


def test_the_numbers_of_every_kind_are_in_the_table(page, healthy):
    text = Elements(page).text
    for row in healthy["classes"]:
        assert row["kind"] in text
        assert f"{row['max']:.2e}" in text
        assert f"{row['kl_max']:.2e}" in text or row["kl_max"] == 0


def test_without_a_baseline_the_ratio_is_not_run():
    text = Elements(render_report(ReportContext("digits", proof(candidate(), base=False)))).text
    assert "○ Not run" in text
    assert "Error against PyTorch" not in text


def test_an_output_that_never_ran_has_no_numbers():
    def broken(x, y):
        raise RuntimeError("no kernel")

    text = Elements(render_report(ReportContext("digits", proof(altered(broken))))).text
    assert "RuntimeError: no kernel" in text
    assert "No case gave a comparable output." in text


def test_the_same_context_gives_the_same_bytes(healthy, tmp_path):
    context = ReportContext("digits", healthy)
    write_report(tmp_path / "a.html", context)
    write_report(tmp_path / "b.html", context)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_failed_write_leaves_the_old_report(healthy, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    context = ReportContext("\ud800", healthy)  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        write_report(target, context)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"


def test_figures_are_svg_whose_colours_come_from_the_page(page):
    (svg,) = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    root = ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Errors of logits by size"
    assert "var(--fail)" in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", svg)
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()


def test_many_outputs_show_some_figures_and_say_how_many_are_left():
    names = [f"past.{index}" for index in range(9)]

    def run(x):
        return dict.fromkeys(names, x)

    runner = FakeRunner("r", run)
    report = prove(runner, [runner], [runner], some_cases(0), [OutputSpec(name) for name in names])
    page = render_report(ReportContext("llama", json.loads(report.to_json())))
    assert page.count("<svg") == 6
    ids = [found["id"] for _, found in Elements(page).tags if "id" in found]
    assert len(ids) == len(set(ids)) >= 6
    assert "3 more outputs: see the numbers below." in page


def test_the_page_is_made_for_a_phone_and_for_the_dark(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<table>") == page.count('<div class="scroll')
