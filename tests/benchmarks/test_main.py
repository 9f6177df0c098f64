from __future__ import annotations

import json
import sys
import types

import pytest

from benchmarks import __main__ as program
from benchmarks.rows import Row


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A benchmark of one row whose value the test chooses."""

    def install(value: float) -> None:
        module = types.ModuleType("benchmarks.fake")
        module.run = lambda *, quick: [Row("fake / floor", value, "x", (1.0, 3.0), bound=2.0)]
        monkeypatch.setitem(sys.modules, "benchmarks.fake", module)
        monkeypatch.setitem(program.BENCHMARKS, "fake", "for this test")
        monkeypatch.setattr(program, "KEPT", tmp_path / "kept")

    return install


def test_without_a_name_every_benchmark_is_listed(capsys):
    assert program.main([]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(program.BENCHMARKS)


@pytest.mark.parametrize("name", program.BENCHMARKS)
def test_every_listed_benchmark_can_be_imported(name):
    __import__(f"benchmarks.{name}")
    assert callable(sys.modules[f"benchmarks.{name}"].run)


def test_a_bound_that_holds_exits_with_0_and_shows_where_it_was_measured(fake, capsys):
    fake(1.5)
    assert program.main(["fake"]) == 0
    shown = capsys.readouterr().out
    assert "fake / floor" in shown
    assert "cores" in shown
    assert "python -m benchmarks fake" in shown


def test_a_bound_that_does_not_hold_exits_with_1(fake, capsys):
    fake(2.5)
    assert program.main(["fake", "--json", "--quick"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["holds"] is False
    assert result["command"] == "python -m benchmarks fake --quick"
    assert result["rows"][0]["spread"] == [1.0, 3.0]
    assert set(result["machine"]) == {"processor", "cores", "memory", "system"}
    assert "onnxruntime" in result["versions"]


def test_a_page_may_take_results_of_runs_before(fake, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "BENCHMARKS", {"fake": "for this test"})
    fake(1.25)
    assert program.main(["fake", "--quick"]) == 0
    assert not (tmp_path / "kept").exists()  # a quick run is not kept
    assert program.main(["fake"]) == 0
    assert program.main(["--write", str(tmp_path / "page.md"), "--kept"]) == 0
    assert "| fake / floor | 1.25 |" in (tmp_path / "page.md").read_text()
    assert "running fake" not in capsys.readouterr().err


def test_one_result_goes_into_a_page_in_the_order_of_the_list(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "BENCHMARKS", {"first": "", "fake": "", "last": ""})
    sheet = tmp_path / "page.md"
    sheet.write_text("# Benchmarks\n\n## first\n\nkept\n\n## last\n\nkept too\n")
    for value in (1.25, 1.75):
        fake(value)
        assert program.main(["fake", "--into", str(sheet)]) == 0
    fake(1.5)
    assert program.main(["fake", "--into", str(sheet), "--kept"]) == 0
    text = sheet.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## first", "## fake", "## last",
    ]  # fmt: skip
    assert "| fake / floor | 1.75 |" in text
    assert "1.25" not in text
    assert text.endswith("## last\n\nkept too\n")


def test_an_unknown_benchmark_is_a_usage_error_that_lists_the_names(capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["nothing"])
    assert stop.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_the_page_has_a_section_with_command_rows_and_machine(fake):
    fake(1.5)
    text = program.page([program.measure("fake", quick=False)])
    assert "## fake\n\n```bash\npython -m benchmarks fake\n```" in text
    assert "| fake / floor | 1.50 | 1.00 to 3.00 | x | <= 2 | yes |" in text
