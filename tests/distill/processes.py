"""Runs of the training loop in processes of their own, for tests that kill or launch several.

python processes.py die WORK OUT STEP...     each STEP kills a process, the next goes on
python processes.py save WORK OUT STEP       the same, while the checkpoint of STEP is written
python processes.py train WORK OUT           under torchrun: losses and weights of all of them
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.distill.fakes import run
from toolkit.distill.options import LoopOptions
from toolkit.distill.state import Store

# Rows of 8 in parts of 3, dropout, looks and checkpoints that do not fall together.
DYING = LoopOptions(
    steps=23, batch=8, part=3, rate=0.02, evaluate=4, checkpoint=3, device="cpu", seed=4
)
# A limit that clips early gradients and not late ones: Adam alone does not mind their scale.
SHARED = LoopOptions(
    steps=30, batch=12, part=4, rate=0.02, clip=0.45, evaluate=10, device="cpu", seed=4
)


def killed(signal_at):
    """A progress that kills its own process after a step."""

    def progress(_what: str, done: int, _total: int) -> None:
        if done == signal_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def in_child(work: Path, out: Path, progress, mid_save: int | None) -> int:
    """The signal that a forked run ended by, 0 if it finished and wrote its weights."""
    child = os.fork()
    if child == 0:
        if mid_save is not None:
            plain = Store.publish

            def publish(store, step, progression):
                if step == mid_save:
                    os.kill(os.getpid(), signal.SIGKILL)
                plain(store, step, progression)

            Store.publish = publish
        outcome = run(work, DYING, 0.2, resume=True, progress=progress)
        save_file({k: v.contiguous() for k, v in outcome.state.items()}, out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def main() -> None:
    torch.set_num_threads(1)
    how, work, out, *steps = sys.argv[1:]
    if how == "train":
        outcome = run(Path(work), SHARED)
        if outcome.main:
            report = outcome.report
            said = {"losses": report.losses, "processes": report.processes}
            said["held"] = [one.loss for one in report.judgements]
            Path(out).write_text(json.dumps(said))
            assert outcome.state
        else:
            assert not outcome.state
        return
    # whatever is imported on first use is imported here, before the forks
    run(Path(work).with_name("first"), replace(DYING, steps=1))
    found = []
    for step in (*steps, "-1"):
        saved, number = step.startswith("s"), int(step.removeprefix("s"))
        progress = killed(-1 if saved else number)
        found.append(in_child(Path(work), Path(out), progress, number if saved else None))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
