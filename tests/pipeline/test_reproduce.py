"""A saved case shows its failure with numpy and ONNX Runtime alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from toolkit.errors import BundleError, ParityError
from toolkit.pipeline import save_case


@pytest.fixture
def broken(exported, tmp_path):
    """The bundle with one weight matrix half a percent off, and its models' folder."""
    shop, bundle, _ = exported
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    model = onnx.load(copy / "model.onnx")
    tensor = next(w for w in model.graph.initializer if w.name.endswith("inner.0.weight"))
    array = numpy_helper.to_array(tensor) * np.float32(1.005)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, copy / "model.onnx")
    return shop, copy


def run_script(folder, cwd):
    """The script in a process that cannot import anything of ours."""
    blocked = "import sys; sys.modules.update(toolkit=None, graphs=None, torch=None, onnx=None)\n"
    code = blocked + f"import runpy; runpy.run_path({str(folder / 'reproduce.py')!r})"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_script_of_a_broken_bundle_exits_1_and_shows_the_error(broken, tmp_path):
    shop, bundle = broken
    saved = save_case(bundle, "2", tmp_path / "case", allow_code=True, root=shop)
    assert not saved.passed
    assert sorted(path.name for path in saved.folder.iterdir()) == [
        "expected.npz", "found.npz", "inputs.npz", "model.onnx", "reproduce.py",
    ]  # fmt: skip
    done = run_script(saved.folder, tmp_path)
    assert done.returncode == 1, done.stderr
    shown = re.match(r"logits: max error (\S+), limit (\S+)$", done.stdout)
    (bound,) = saved.bounds
    assert shown, done.stdout
    assert float(shown[1]) == pytest.approx(bound.max, rel=1e-3)
    assert float(shown[1]) > float(shown[2])


def test_the_script_has_twelve_lines_and_needs_numpy_and_onnxruntime_alone(broken, tmp_path):
    shop, bundle = broken
    saved = save_case(bundle, "1", tmp_path / "case", allow_code=True, root=shop)
    lines = (saved.folder / "reproduce.py").read_text().splitlines()
    assert len(lines) <= 12
    imports = [line for line in lines if line.startswith("import")]
    assert imports == ["import os, sys", "import numpy as np, onnxruntime as ort"]


def test_the_arrays_are_the_case(broken, tmp_path):
    shop, bundle = broken
    saved = save_case(bundle, "1", tmp_path / "case", allow_code=True, root=shop)
    expected, found, inputs = (
        np.load(saved.folder / f"{name}.npz") for name in ("expected", "found", "inputs")
    )
    first = json.loads((bundle / "parity.json").read_text())["cases"][0]
    assert saved.case == first["name"]
    assert inputs["x"].shape == (first["dims"]["batch"], 6)
    assert (expected["logits"].dtype, found["logits"].dtype) == (np.float64, np.float32)
    assert expected["logits"].shape == found["logits"].shape


def test_the_script_of_a_healthy_bundle_exits_0(exported, tmp_path):
    shop, bundle, _ = exported
    saved = save_case(bundle, "corner: batch=8", tmp_path / "case", allow_code=True, root=shop)
    assert saved.passed
    assert run_script(saved.folder, tmp_path).returncode == 0


def test_nan_fails(exported, tmp_path):
    shop, bundle, _ = exported
    saved = save_case(bundle, "1", tmp_path / "case", allow_code=True, root=shop)
    expected = dict(np.load(saved.folder / "expected.npz"))
    expected["logits"][0, 0] = np.nan
    np.savez(saved.folder / "expected.npz", **expected)
    assert run_script(saved.folder, tmp_path).returncode == 1


def test_a_case_that_does_not_exist_is_refused(exported, tmp_path):
    shop, bundle, _ = exported
    with pytest.raises(ParityError, match=r"there is no case '999', only 1 to \d+") as error:
        save_case(bundle, "999", tmp_path / "case", allow_code=True, root=shop)
    assert "corner: batch=4" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_or_lies_in_the_bundle_is_refused(exported, tmp_path):
    shop, bundle, _ = exported
    with pytest.raises(BundleError, match="exists"):
        save_case(bundle, "1", tmp_path, allow_code=True, root=shop)
    with pytest.raises(BundleError, match="lies in the bundle"):
        save_case(bundle, "1", bundle / "case", allow_code=True, root=shop)
