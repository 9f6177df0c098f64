"""Targets on disk: what comes back, going on after a kill, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from toolkit.distill import (
    CachedTeacher,
    CacheKey,
    Compression,
    StudentOutputs,
    Targets,
    WordLevel,
    compress,
    measure_compression,
    row_mask,
    write_cache,
)
from toolkit.errors import BundleError, CheckpointError, IntegrityError, RecipeError

V, EXAMPLES = 30, 11
KEY = CacheKey({"files": ["a"]}, "data", {"task": "causal-lm"})


class Speaker:
    """A teacher whose logits follow from the tokens."""

    def __init__(self, stop_at=None):
        self.table = torch.randn(V, V, generator=torch.Generator().manual_seed(0)) * 3
        self.asked, self.stop_at = 0, stop_at

    def targets(self, batch):
        if self.asked == self.stop_at:
            raise KeyboardInterrupt
        self.asked += 1
        logs = self.table[batch["input_ids"]].log_softmax(-1).reshape(-1, V)
        return Targets(row_mask("causal-lm", batch), log_probs=logs)


def examples():
    rng = np.random.default_rng(5)
    return [torch.from_numpy(rng.integers(1, V, rng.integers(2, 9))) for _ in range(EXAMPLES)]


def batched(numbers, size=2):
    texts = examples()
    found = []
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        longest = max(len(texts[i]) for i in part)
        ids, mask = torch.zeros(len(part), longest).long(), torch.zeros(len(part), longest).long()
        for row, i in enumerate(part):
            ids[row, : len(texts[i])], mask[row, : len(texts[i])] = texts[i], 1
        found.append({"input_ids": ids, "attention_mask": mask, "index": torch.tensor(part)})
    return found


BATCHES = batched(list(range(EXAMPLES)))
HOW = [
    Compression(8),
    Compression(20, 0.9),
    Compression(8, temperature=2.0),
    Compression(V),
    Compression(12, 0.99, dtype="float16"),
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_what_was_kept_is_what_compressing_gives(tmp_path, how):
    live = Speaker()
    assert write_cache(tmp_path / "c", live, BATCHES, KEY, compression=how, per_file=2)
    asked = live.asked
    assert not write_cache(tmp_path / "c", live, BATCHES, KEY, compression=how, per_file=2)
    assert live.asked == asked
    cached = CachedTeacher(tmp_path / "c", KEY, "causal-lm", how)
    assert cached.rows == sum(int(row_mask("causal-lm", batch).sum()) for batch in BATCHES)
    objective = WordLevel(temperature=how.temperature)
    for batch in batched([7, 2, 10, 0, 3], size=3):  # another order, other padding
        full, found = live.targets(batch), cached.targets(batch)
        wanted = compress(full, how.top_k, how.top_p, how.temperature, how.dtype)
        assert torch.equal(found.mask, full.mask)
        z = torch.randn(full.mask.numel(), V, generator=torch.Generator().manual_seed(1))
        said = StudentOutputs(z, {}, full.mask)
        losses = [float(objective(said, one, batch).total) for one in (found, wanted, full)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        whole = how.top_k == V or how.dtype == "float16"
        assert losses[0] == pytest.approx(losses[2], rel=2e-2 if whole else 1.0)
        assert losses[0] <= losses[2] * (1 + (1e-3 if how.dtype == "float16" else 1e-6))
        masses = found.kept.exp().sum(-1) + found.rest.exp()
        torch.testing.assert_close(masses, torch.ones_like(masses))
    if how.top_p < 1:
        assert cached.nbytes < 0.9 * _bytes(tmp_path, Compression(how.top_k, dtype=how.dtype))


def _bytes(folder, how):
    write_cache(folder / "whole", Speaker(), BATCHES, KEY, compression=how)
    return CachedTeacher(folder / "whole", KEY, "causal-lm", how).nbytes


def test_the_effect_of_compression_is_measured_and_bounds_the_difference(tmp_path):
    how, live = Compression(8), Speaker()
    write_cache(tmp_path / "c", live, BATCHES, KEY, compression=how)
    cached = CachedTeacher(tmp_path / "c", KEY, "causal-lm", how)

    def student(batch):
        mask = row_mask("causal-lm", batch)
        return StudentOutputs(torch.zeros(mask.numel(), V), {}, mask)

    effect = measure_compression(live, student, WordLevel(), BATCHES, how)
    assert effect.classes == 8
    assert 0.5 < effect.kept_mass < 1
    assert 0 < effect.gap <= effect.largest
    assert "8.0 classes of a row keep" in str(effect)
    assert json.dumps(effect.to_json())
    means = []
    for teacher in (live, cached):
        losses = [WordLevel()(student(b), teacher.targets(b), b) for b in BATCHES]
        means.append(float(sum(x.total for x in losses) / sum(x.count for x in losses)))
        for batch in BATCHES:
            pair = [WordLevel()(student(batch), t.targets(batch), batch) for t in (live, cached)]
            assert abs(float(pair[0].mean - pair[1].mean)) <= effect.largest * (1 + 1e-5)
    assert means[0] == pytest.approx(effect.whole, rel=1e-5)
    assert means[1] == pytest.approx(effect.compressed, rel=1e-5)


def test_writing_goes_on_after_a_kill(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "c", Speaker(stop_at=3), BATCHES, KEY, per_file=1)
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("0*")}
    assert len(files) == 3
    with pytest.raises(BundleError, match="is not complete"):
        CachedTeacher(tmp_path / "c", KEY, "causal-lm")
    again = Speaker()
    write_cache(tmp_path / "c", again, BATCHES, KEY, per_file=1)
    assert again.asked == len(BATCHES) - 3
    assert all((tmp_path / "c" / name).stat().st_mtime_ns == time for name, time in files.items())
    write_cache(tmp_path / "d", Speaker(), BATCHES, KEY, per_file=1)
    for path in (tmp_path / "d").glob("0*"):
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()


def test_rows_in_other_batches_are_written_anew(tmp_path):
    """What is in which file depends on the batches, so a part of one is no part of the other."""
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "c", Speaker(stop_at=3), BATCHES, KEY, per_file=1)
    others = batched(list(range(EXAMPLES)), size=3)
    write_cache(tmp_path / "c", Speaker(), others, KEY, per_file=1)
    cached = CachedTeacher(tmp_path / "c", KEY, "causal-lm")
    assert cached.rows == sum(int(row_mask("causal-lm", batch).sum()) for batch in BATCHES)
    for batch in BATCHES:
        wanted = compress(Speaker().targets(batch), Compression().top_k)
        found = cached.targets(batch)
        torch.testing.assert_close(found.kept[found.mask], wanted.kept[found.mask])
    asked = Speaker()
    assert not write_cache(tmp_path / "c", asked, BATCHES, KEY, per_file=4)
    assert not asked.asked


def test_a_cache_of_something_else_is_refused(tmp_path):
    folder = tmp_path / "c"
    write_cache(folder, Speaker(), BATCHES, KEY)
    others = {
        "teachers": CacheKey({"files": ["b"]}, "data", KEY.options),
        "data": CacheKey(KEY.teachers, "more", KEY.options),
        "options": CacheKey(KEY.teachers, "data", {"task": "masked-lm"}),
    }
    for name, key in others.items():
        with pytest.raises(IntegrityError, match=f"written from other {name}$"):
            CachedTeacher(folder, key, "causal-lm")
        with pytest.raises(IntegrityError, match=f"written from other {name}$"):
            write_cache(folder, Speaker(), BATCHES, key)
    with pytest.raises(IntegrityError, match="written from other compression"):
        CachedTeacher(folder, KEY, "causal-lm", Compression(3))
    cached = CachedTeacher(folder, KEY, "causal-lm")
    with pytest.raises(IntegrityError, match="has nothing of example 99"):
        cached.targets({**BATCHES[0], "index": torch.tensor([0, 99])})
    with pytest.raises(IntegrityError, match="rows of example 0"):
        cached.targets({**BATCHES[0], "attention_mask": BATCHES[0]["attention_mask"] * 0})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("kept")
    with pytest.raises(BundleError, match=r"holds other files, first 'mine\.txt'"):
        write_cache(tmp_path / "other", Speaker(), BATCHES, KEY)
    shard = folder / "00000.safetensors"
    arrays = load_file(shard)
    save_file({**arrays, "rest": arrays["rest"][1:].copy()}, shard)
    with pytest.raises(IntegrityError, match="does not hold the targets it says"):
        CachedTeacher(folder, KEY, "causal-lm")
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(CheckpointError):
        CachedTeacher(folder, KEY, "causal-lm")
    shard.unlink()
    with pytest.raises(IntegrityError, match="is missing, and the index says"):
        CachedTeacher(folder, KEY, "causal-lm")
    (folder / "index.json").write_text("{}")
    with pytest.raises(BundleError, match="cannot be read as the index"):
        CachedTeacher(folder, KEY, "causal-lm")


def test_vectors_are_kept_and_states_are_not(tmp_path):
    class Embeds:
        def __init__(self, dims):
            self.dims = dims

        def targets(self, batch):
            value = batch["x"] if self.dims == 2 else batch["x"][:, None]
            return Targets(torch.ones(len(batch["x"])).bool(), hidden={"sentence_embedding": value})

    x = torch.randn(6, 4)
    batches = [{"x": x[i : i + 3], "index": torch.arange(i, i + 3)} for i in (0, 3)]
    write_cache(tmp_path / "c", Embeds(2), batches, KEY)
    cached = CachedTeacher(tmp_path / "c", KEY, "embedding")
    found = cached.targets({"x": x[[4, 0]], "index": torch.tensor([4, 0])})
    assert torch.equal(found.hidden["sentence_embedding"], x[[4, 0]])
    with pytest.raises(RecipeError, match="only one vector of each example"):
        write_cache(tmp_path / "d", Embeds(3), batches, KEY)
