"""OutputStore: memory first, then a folder that does not survive."""

from __future__ import annotations

import tempfile

import numpy as np

from toolkit.parity.store import OutputStore


def test_arrays_over_the_limit_go_to_disk_and_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = np.arange(10.0), np.full((3, 0, 2), 1.0)
    third = np.arange(6.0).reshape(2, 3)
    with OutputStore(first.nbytes) as store:
        store[0, "a"], store[0, "b"], store[1, "a"] = first, second, third
        assert store.spilled == 1
        assert len(list(tmp_path.rglob("*.npy"))) == 1
        np.testing.assert_array_equal(store[0, "a"], first)
        np.testing.assert_array_equal(store[1, "a"], third)
        assert store[0, "b"].shape == (3, 0, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_buffer_that_is_used_again_does_not_change_what_was_kept():
    buffer = np.zeros(3)
    with OutputStore(100) as store:
        store[0, "a"] = buffer
        buffer[:] = 1
        np.testing.assert_array_equal(store[0, "a"], np.zeros(3))


def test_the_folder_goes_when_the_proof_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        with OutputStore(0) as store:
            store[0, "a"] = np.ones(4)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert list(tmp_path.iterdir()) == []
