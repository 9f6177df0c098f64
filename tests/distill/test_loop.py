"""The training loop: the same loss however a batch is cut, and the same weights however it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distill import processes
from tests.distill.fakes import examples, run, training
from toolkit.distill.loop import train_student
from toolkit.distill.options import LoopOptions
from toolkit.distill.state import Store
from toolkit.errors import CapabilityError, Interrupted, RecipeError

PLAIN = LoopOptions(steps=20, batch=8, rate=0.02, evaluate=5, device="cpu")


def in_processes(*arguments: str | Path, count: int = 0) -> str:
    script = str(Path(processes.__file__))
    launch = [sys.executable, script]
    if count:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count),
                  "--master_addr", "127.0.0.1", "--master_port", str(port), script]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    undisturbed = run(tmp_path / "undisturbed", processes.DYING, 0.2)
    deaths = ["1", "3", "5", "s12", "16", "20", "s23", "23"]
    said = in_processes("die", tmp_path / "work", tmp_path / "weights.safetensors", *deaths)
    ends = json.loads(said.splitlines()[-1])
    assert ends == [signal.SIGKILL] * len(deaths) + [0]
    assert same(load_file(tmp_path / "weights.safetensors"), undisturbed.state)


def test_two_processes_have_the_losses_of_one(tmp_path):
    alone = run(tmp_path / "one", processes.SHARED)
    in_processes("train", tmp_path / "two", tmp_path / "said.json", count=2)
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["processes"] == 2
    assert said["losses"] == pytest.approx(alone.report.losses, rel=1e-4)
    held = [one.loss for one in alone.report.judgements]
    assert len(held) == 3
    assert said["held"] == pytest.approx(held, rel=1e-4)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path):
    whole = run(tmp_path / "whole", PLAIN).report.losses
    cut = run(tmp_path / "cut", replace(PLAIN, part=3)).report.losses
    assert cut == pytest.approx(whole, rel=1e-5)
    assert whole[-1] < whole[0]


def test_every_row_to_learn_from_is_seen_in_a_pass_and_no_other(tmp_path):
    made = training()
    options = LoopOptions(epochs=1, batch=6, device="cpu", evaluate=100)
    rows = replace(made.examples, held=made.examples.held[:0])
    train_student(replace(made, examples=rows), options, Store(tmp_path, "k"))
    assert sorted(made.teacher.rows) == rows.train.tolist()


def test_training_stops_when_held_out_rows_say_so_and_the_best_weights_are_kept(tmp_path):
    # A rate that drives the loss up after a while.
    options = replace(PLAIN, steps=400, rate=1.5, clip=0.0, evaluate=2, patience=3,
                      schedule="constant", warmup=0.0)  # fmt: skip
    outcome = run(tmp_path / "work", options)
    report = outcome.report
    assert report.steps < report.planned
    best = min(report.judgements, key=lambda one: one.loss)
    assert report.best == best.step == report.steps - 6
    again = training()
    again.speaker.load_state_dict(outcome.state)
    batch = again.examples.batch(again.examples.held)
    wanted = batch["labels"]
    with torch.no_grad():
        logits = again.speaker.eval()(batch)[0]
    assert (logits.argmax(-1) == wanted).float().mean().item() == pytest.approx(best.accuracy)


def test_half_precision_trains_and_keeps_weights_in_float32(tmp_path):
    outcome = run(tmp_path / "work", replace(PLAIN, precision="bfloat16"))
    full = run(tmp_path / "full", PLAIN)
    assert {t.dtype for t in outcome.state.values()} == {torch.float32}
    assert outcome.report.losses[-1] == pytest.approx(full.report.losses[-1], rel=0.05)
    assert not same(outcome.state, full.state)


def test_float16_without_a_gpu_is_refused_rather_than_not_used(tmp_path):
    with pytest.raises(CapabilityError, match="float16 needs a GPU"):
        run(tmp_path / "work", replace(PLAIN, precision="float16"))


def test_an_interrupted_run_is_kept_and_only_its_own_recipe_goes_on(tmp_path):
    def interrupt(_what, done, _total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="--resume"):
        run(tmp_path, replace(PLAIN, checkpoint=2), progress=interrupt)
    with pytest.raises(RecipeError, match="holds a run that is not finished"):
        run(tmp_path, PLAIN)
    with pytest.raises(RecipeError, match="of another recipe"):
        train_student(training(), PLAIN, Store(tmp_path, "other"), resume=True)
    steps = []
    run(tmp_path, PLAIN, resume=True, progress=lambda _w, done, _t: steps.append(done))
    assert steps[0] == 7


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schedule": "up"}, "training.schedule: .*up"),
        ({"batch": 0}, "training.batch is 0, wanted 1 or more"),
    ],
)
def test_mistakes(tmp_path, change, text):
    with pytest.raises(RecipeError, match=text):
        run(tmp_path, replace(PLAIN, **change))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    rows = examples()
    rows.columns["x"][20] = float("nan")
    with pytest.raises(RecipeError, match=r"the loss of step \d is nan"):
        train_student(training(rows=rows), PLAIN, Store(tmp_path, "k"))


def test_curves_go_on_where_the_run_goes_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "work", replace(PLAIN, steps=10), logs=tmp_path / "logs")
    found = EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == list(range(1, 11))
    assert [event.step for event in found.Scalars("held_out/accuracy")] == [5, 10]


def test_progress_says_how_fast_and_how_long(tmp_path):
    said = []
    run(tmp_path, PLAIN, progress=lambda what, done, total: said.append((what, done, total)))
    what, done, total = said[-1]
    assert (done, total) == (20, 20)
    assert what.startswith("distil · loss ")
    assert what.endswith("rows/s, 0:00 left")
