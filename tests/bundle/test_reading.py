"""A bundle is held against its manifest before anything in it is believed."""

from __future__ import annotations

import pytest

from toolkit.bundle import Manifest, hash_file, open_bundle
from toolkit.errors import BundleError, IntegrityError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "parity.json").write_bytes(b"{}")
    manifest = Manifest(
        root="..", verdict="passed", target="onnx", opset=20, seed=0, inputs=(), outputs=(),
        shapes={"batch": (1, 2, 3)}, engine=None, versions={}, sources=(),
        files={name: hash_file(tmp_path / name) for name in ("model.onnx", "parity.json")},
    )  # fmt: skip
    manifest.write(tmp_path / "manifest.json")
    return tmp_path


def test_manifest_reads_as_written(folder):
    manifest = open_bundle(folder).manifest
    assert manifest == Manifest.read(folder / "manifest.json")
    assert manifest.files["model.onnx"].bytes == 5


def change(folder):
    (folder / "model.onnx").write_bytes(b"GRAPH")


def remove(folder):
    (folder / "parity.json").unlink()


def add(folder):
    (folder / "extra").write_text("")


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (change, "model.onnx has changed"),
        (remove, "parity.json is missing"),
        (add, "extra is not in the manifest"),
    ],
)
def test_what_differs_is_named(folder, harm, text):
    harm(folder)
    with pytest.raises(IntegrityError, match=text) as found:
        open_bundle(folder)
    assert found.value.exit_code == 5
    assert open_bundle(folder, verify=False).folder == folder


def test_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"has no manifest.json, so it is no bundle"):
        open_bundle(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(BundleError, match="nowhere is not a folder"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', "\x00"])
def test_other_manifests_are_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="is not a manifest this version reads"):
        open_bundle(tmp_path)
