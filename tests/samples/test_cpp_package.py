"""``toolkit package --format cpp``: what it writes builds as it is, and answers as Python does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import onnxruntime as ort
import pytest

from tests.samples.conftest import SAMPLES
from tests.workshop import write_recipe, write_workshop
from toolkit.bundle import Manifest, open_bundle
from toolkit.cli import main
from toolkit.errors import ParityError
from toolkit.package import package_cpp
from toolkit.pipeline import export_recipe
from toolkit.recipe import load_recipe


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    shop = write_workshop(folder / "shop")
    recipe = load_recipe(write_recipe(shop), allow_code=True)
    export_recipe(recipe, shop, folder / "bundle")
    return folder / "bundle"


def test_it_builds_as_it_is_and_its_outputs_are_pythons(bundle, headers, library, tmp_path, capsys):
    out = tmp_path / "program"
    with pytest.raises(SystemExit) as stop:
        main(["package", str(bundle), "-o", str(out), "--format", "cpp", "--json"])
    assert stop.value.code == 0
    listed = json.loads(capsys.readouterr().out)["files"]
    assert {"CMakeLists.txt", "run_ort.cpp", "bundle/model.onnx", "feeds/x.npy"} <= set(listed)
    assert open_bundle(out / "bundle"), "what was copied is what its manifest says"
    shutil.copytree(
        headers, out / "build" / "headers", symlinks=True
    )  # which fetch_headers.sh leaves as they are
    for command in (
        ["./fetch_headers.sh"],
        ["cmake", "--preset", "release"],
        ["cmake", "--build", "--preset", "release", "--target", "run_ort"],
        ["build/release/run_ort", "bundle", "--feeds", "feeds", "--outputs", "outputs",
         "--threads", "1"],
    ):  # fmt: skip
        done = subprocess.run(
            command, cwd=out, capture_output=True, text=True, check=False,
            env={**os.environ, "ONNXRUNTIME_LIBRARY": str(library)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle / "model.onnx"), options)
    (wanted,) = session.run(None, {"x": np.load(out / "feeds" / "x.npy")})
    assert np.load(out / "outputs" / "logits.npy").tobytes() == wanted.tobytes()


def test_the_readme_tells_this_bundles_interface_and_every_source_is_the_samples(bundle, tmp_path):
    packaged = package_cpp(bundle, tmp_path / "program")
    text = (packaged.folder / "README.md").read_text()
    assert "| in | `x` | float32[batch, 6] |" in text
    assert "| batch | 1 | 4 | 8 |" in text
    assert "run_trt" not in text, "it has no engine"
    for path in packaged.folder.glob("*.[ch]pp"):
        assert path.read_bytes() == (SAMPLES / "cpp" / path.name).read_bytes()
    assert os.access(packaged.folder / "fetch_headers.sh", os.X_OK)


def test_an_engine_with_plugins_comes_with_their_sources(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.package.cpp_program._wants_plugin", lambda manifest: True)
    packaged = package_cpp(bundle, tmp_path / "program")
    assert (packaged.folder / "plugin" / "CMakeLists.txt").is_file()
    assert (packaged.folder / "plugin" / "plugin.cpp").is_file()
    assert "--plugin" in (packaged.folder / "README.md").read_text()
    assert any("plugin/" in note for note in packaged.notes)


def test_what_is_there_is_kept_and_a_failed_proof_is_refused(bundle, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "main.cpp").write_text("int main() {}")
    with pytest.raises(SystemExit) as stop:
        main(["package", str(bundle), "-o", str(tmp_path / "mine"), "--format", "cpp"])
    assert stop.value.code == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    failed = tmp_path / "failed"
    shutil.copytree(bundle, failed)
    manifest = Manifest.read(failed / "manifest.json").model_copy(update={"verdict": "failed"})
    manifest.write(failed / "manifest.json")
    with pytest.raises(ParityError, match="failed its parity proof"):
        package_cpp(failed, tmp_path / "program")
    assert not (tmp_path / "program").exists()
