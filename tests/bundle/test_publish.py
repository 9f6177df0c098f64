"""Publishing is atomic, and refuses to replace what is no bundle."""

from __future__ import annotations

import errno
import os

import pytest

from toolkit.bundle import publish as publish_module
from toolkit.bundle import publishing
from toolkit.errors import BundleError


def write(draft, text):
    (draft.folder / "manifest.json").write_text(text)


def test_folder_appears_whole(tmp_path):
    out = tmp_path / "a" / "b"
    with publishing(out) as draft:
        write(draft, "one")
        assert not out.exists()
    assert (out / "manifest.json").read_text() == "one"
    assert [p.name for p in out.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("exchange", [True, False])
def test_bundle_is_replaced(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(publish_module, "_exchange", lambda a, b: False)
    out = tmp_path / "b"
    for text in ("one", "two"):
        with publishing(out) as draft:
            write(draft, text)
    assert (out / "manifest.json").read_text() == "two"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_bundle_and_nothing_else(tmp_path, error):
    out = tmp_path / "b"
    with publishing(out) as draft:
        write(draft, "old")
    with pytest.raises(error), publishing(out) as draft:
        write(draft, "new")
        raise error
    assert (out / "manifest.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_failure_removes_the_parents_it_made(tmp_path):
    with pytest.raises(ValueError, match="stop"), publishing(tmp_path / "x" / "y" / "z"):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_failed_rename_brings_the_old_bundle_back(tmp_path, monkeypatch):
    monkeypatch.setattr(publish_module, "_exchange", lambda a, b: False)
    out = tmp_path / "b"
    with publishing(out) as draft:
        write(draft, "old")
    with pytest.raises(OSError, match="gone"), publishing(out) as draft:
        write(draft, "new")
        original = publish_module.Path.rename

        def rename(self, target):
            if self == draft.folder:
                raise OSError(errno.EIO, "gone")
            return original(self, target)

        monkeypatch.setattr(publish_module.Path, "rename", rename)
    assert (out / "manifest.json").read_text() == "old"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_other_things_are_not_replaced(tmp_path, kind):
    out = tmp_path / "precious"
    if kind == "file":
        out.write_text("thesis")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("thesis")
    with (
        pytest.raises(BundleError, match=r"precious exists and is a f\w+.*, not a bundle") as found,
        publishing(out),
    ):
        pytest.fail("the body must not run")
    assert "only bundles are replaced" in found.value.hint
    assert out.exists()


def test_empty_folder_is_used(tmp_path):
    out = tmp_path / "empty"
    out.mkdir()
    with publishing(out) as draft:
        write(draft, "one")
    assert (out / "manifest.json").is_file()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_said_and_leaves_nothing(tmp_path, code):
    with (
        pytest.raises(BundleError, match="the disk is full: writing b stopped at 3 bytes") as found,
        publishing(tmp_path / "b") as draft,
    ):
        write(draft, "old")
        raise OSError(code, os.strerror(code))
    assert "nothing was left behind" in found.value.hint
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    dead = tmp_path / ".b.partial-999999999"
    dead.mkdir()
    alive = tmp_path / f".b.partial-{os.getppid()}"
    alive.mkdir()
    with publishing(tmp_path / "b") as draft:
        write(draft, "one")
    assert not dead.exists()
    assert alive.exists()


def test_parent_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot create .*file"), publishing(tmp_path / "file/b"):
        pytest.fail("the body must not run")


def test_merged_checkpoint_is_no_bundle(tmp_path):
    out = tmp_path / "merged"
    out.mkdir()
    (out / "manifest.json").write_text('{\n  "kind": "merge",\n  "files": {}\n}')
    with pytest.raises(BundleError, match="not a bundle"), publishing(out):
        pytest.fail("the body must not run")
