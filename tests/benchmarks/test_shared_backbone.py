from __future__ import annotations

from safetensors.numpy import load_file

from benchmarks.shared_backbone import CASES, fine_tunes


def test_fine_tunes_differ_in_what_was_trained_alone(tmp_path):
    for case in CASES:
        first, *others = fine_tunes(case, tmp_path, width=32)
        whole = load_file(first / "model.safetensors")
        for other in others:
            found = load_file(other / "model.safetensors")
            changed = {name for name in whole if (whole[name] != found[name]).any()}
            assert changed == {name for name in whole if name.startswith(case.trained)}
