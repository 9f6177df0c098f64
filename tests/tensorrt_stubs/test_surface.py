"""Every name of TensorRT that this project uses is in NVIDIA's own bindings of three releases."""

from __future__ import annotations

import pytest

from tests.tensorrt_stubs.bindings import RELEASES, ask
from tests.tensorrt_stubs.surface import LOOKUP, broken, rows

# More than counts of classes and calls would show if rows were lost on the way.
EXPECTED = {
    ("Builder", "build_serialized_network"), ("IBuilderConfig", "clear_flag"),
    ("BuilderFlag", "REFIT_IDENTICAL"), ("ITensor", "is_shape_tensor"),
    ("ILogger.Severity", "VERBOSE"),
    ("IProgressMonitor", "phase_start"), ("OnnxParser", "__init__"), ("", "__version__"),
    ("DataType", "BF16"), ("IOptimizationProfile", "set_shape"),
}  # fmt: skip


def surface(release: str):
    """What a release must have."""
    first = release == RELEASES[0]
    return [
        row
        for row in rows()
        if (release == "rtx" or not row.rtx) and not (row.later and (first or release == "rtx"))
    ]


@pytest.mark.parametrize("release", [*RELEASES, "rtx"])
def test_every_name_is_there_and_every_misspelled_one_is_found(release, tmp_path):
    true = surface(release)
    false = [(row, wrong) for row in true for wrong in broken(row)]
    data = [row.data() for row in true] + [wrong.data() for _, wrong in false]
    answer = ask(release, LOOKUP, data, tmp_path)
    missing = {
        f"{row.owner}.{row.name}": why
        for row, why in zip(true, answer[: len(true)], strict=True)
        if why
    }
    assert missing == {}
    unseen = [
        (row.owner, row.name, wrong)
        for (row, wrong), why in zip(false, answer[len(true) :], strict=True)
        if not why
    ]
    assert unseen == []
    assert len(true) > 60
    assert {(row.owner, row.name) for row in true} >= EXPECTED


@pytest.mark.parametrize("release", RELEASES)
def test_what_only_rtx_has_is_not_in_tensorrt(release, tmp_path):
    only = [row for row in rows() if row.rtx]
    answer = ask(release, LOOKUP, [row.data() for row in only], tmp_path)
    there = [row.name for row, why in zip(only, answer, strict=True) if not why]
    assert set(there) <= {"IBuilderConfig"}
    assert len(only) > 3


def test_what_came_later_is_not_in_the_first_release(tmp_path):
    later = [row for row in rows() if row.later]
    assert all(ask(RELEASES[0], LOOKUP, [row.data() for row in later], tmp_path))
    assert {row.name for row in later} == {"SAME_COMPUTE_CAPABILITY", "PREFER_AOT_PYTHON_PLUGINS"}


@pytest.mark.parametrize("release", RELEASES)
def test_the_bindings_are_of_the_release_and_hold_no_builder(release, tmp_path):
    script = (
        "try:\n    trt.Builder(trt.Logger())\nexcept TypeError as error:\n"
        "    answer = [trt.__version__, str(error)]\n"
    )
    version, error = ask(release, script, None, tmp_path)
    assert version == release
    assert "factory function returned nullptr" in error
