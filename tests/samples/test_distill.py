"""The distillation samples: their figures, what students may see, and recipes that are valid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def test_gains_are_of_pairs(recipes: Path) -> None:
    import distill_table

    rows = {"base": [1.0, 5.0, 3.0], "better": [2.0, 6.5, 4.1]}
    assert distill_table.gain(rows["better"], rows["base"]) == pytest.approx((1.2, 0.1527525))
    shown = distill_table.table(rows, "base", "%").splitlines()
    assert shown[-1] == "| better | 4.20 | 1.30 | +1.20 | 0.15 | +7.9 |"
    assert shown[-2] == "| base | 3.00 | 1.15 | | | |"


def test_digits_students_see_nothing_that_measures_and_a_tenth_is_a_tenth(
    recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import digits_distill

    monkeypatch.setattr(digits_distill, "EPOCHS", 1)
    monkeypatch.setattr(digits_distill, "TRAINING", {"steps": 2, "device": "cpu"})
    teachers, test = digits_distill.prepare(tmp_path, 0)
    own, theirs = (np.load(tmp_path / f"{name}.npz")["image"] for name in ("own", "theirs"))
    assert (len(theirs), len(own), len(test.label)) == (500, 650, 647)
    seen = {image.tobytes() for image in (*own, *theirs)}
    again = sum(image.numpy().tobytes() in seen for image in test.image)
    assert again == 0
    assert digits_distill.ship(tmp_path, 0).startswith(
        "student 1,810 parameters, teachers 18,574 together (9.7%); exported, parity passed"
    )
    assert len(teachers) == 3


def test_text_recipes_name_the_teachers_and_share_no_passage_with_what_measures(
    recipes: Path, tmp_path: Path
) -> None:
    import text_distill

    test = text_distill.write_texts(tmp_path)
    shown = (tmp_path / "student.jsonl").read_text() + (tmp_path / "judge.jsonl").read_text()
    assert len((tmp_path / "student.jsonl").read_text().splitlines()) == text_distill.PASSAGES
    assert not any(passage[:200] in shown for passage in test)
    for teachers, objective in text_distill.STUDENTS.values():
        made = text_distill.recipe_of(teachers, objective, 3)
        members = made["model"]["distill"]["teachers"]["ensemble"]["members"]
        assert [member["checkpoint"] for member in members] == list(teachers)
        assert made["seed"] == 3
