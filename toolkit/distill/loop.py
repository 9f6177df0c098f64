"""The training loop, on Hugging Face accelerate: one process or many, from a checkpoint or new.

It knows teachers and objectives by their protocols alone. The gradient of a step is the sum over
its rows divided by how many count, over all parts and processes: the same loss however the batch
is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.distill.data import Examples
from toolkit.distill.lesson import Lesson
from toolkit.distill.options import Judgement, LoopOptions, LoopReport
from toolkit.distill.order import Order
from toolkit.distill.pace import Curves, Pace
from toolkit.distill.state import Progression, Store
from toolkit.distill.types import Batch, Objective, Task, Teacher
from toolkit.errors import CapabilityError, Interrupted, RecipeError
from toolkit.progress import Progress, silent
from toolkit.sparse import Masks

__all__ = ["Outcome", "Training", "accelerator_of", "train_student"]

_MIXED = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Training:
    """What to train, and on what.

    Attributes:
        speaker: The student, see ``Student.build``.
        task: What its outputs are.
        teacher: Says what is to be learnt.
        objective: What is minimised.
        examples: Rows.
        before: Changes a batch before anybody sees it, such as on-policy samples of the student;
            given the student as it is and the batch. None leaves batches as they are.
    """

    speaker: nn.Module
    task: Task
    teacher: Teacher
    objective: Objective
    examples: Examples
    before: Callable[[nn.Module, Batch], Batch] | None = None


@dataclass(frozen=True)
class Outcome:
    """A trained student.

    Attributes:
        report: How training went.
        state: Its weights, named as in its speaker; empty on all processes but the first.
        main: Whether this process is the first.
    """

    report: LoopReport
    state: dict[str, Tensor]
    main: bool


def accelerator_of(options: LoopOptions) -> Any:
    """The accelerator of this process, and of its siblings under ``accelerate launch``.

    Raises:
        CapabilityError: If accelerate is not installed, or float16 is asked for without a GPU.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs  # noqa: PLC0415
        from accelerate.state import AcceleratorState  # noqa: PLC0415
    except ImportError as error:
        raise CapabilityError(
            "distillation needs the accelerate package, which is not installed",
            hint="pip install 'ensemble-to-engine[distill]'",
        ) from error
    # Its state is one for the whole process, and a run before this one may have had another.
    AcceleratorState._reset_state(reset_partial_state=False)
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # experts, poolers
    made = Accelerator(
        mixed_precision=_MIXED[options.precision],
        cpu=options.device == "cpu",
        kwargs_handlers=[unused],
    )
    if options.precision == "float16" and made.device.type == "cpu":
        raise CapabilityError(
            "training in float16 needs a GPU: on the CPU accelerate would train in float32",
            hint="training: {precision: bfloat16}",
        )
    return made


def train_student(  # noqa: PLR0913  (each is a different thing, and all are needed)
    training: Training,
    options: LoopOptions,
    store: Store,
    *,
    resume: bool = False,
    logs: Path | None = None,
    progress: Progress = silent,
    accelerator: Any = None,
) -> Outcome:
    """Train, from the store's last checkpoint if there is one and ``resume`` is set.

    Args:
        training: What and on what.
        options: How.
        store: Where checkpoints go; ``Store.finish`` removes them when the result is safe.
        resume: Whether to go on with an unfinished run.
        logs: Folder for TensorBoard.
        progress: Told of every step, by the first process.
        accelerator: What ``accelerator_of`` gave; None makes one.

    Raises:
        RecipeError: If the loss is no number, or an unfinished run is of another recipe.
        Interrupted: On Ctrl-C, after which the run can be resumed.
    """
    loop = _Loop(training, options, store, accelerator or accelerator_of(options))
    try:
        return loop.run(resume=resume, logs=logs, progress=progress)
    except KeyboardInterrupt as error:
        raise Interrupted("the last checkpoint is kept; --resume goes on from it") from error


class _Loop:
    def __init__(
        self, training: Training, options: LoopOptions, store: Store, accelerator: Any
    ) -> None:
        self._training, self._options, self._store = training, options, store
        self._accelerator = accelerator
        self._order = Order(training.examples.train, options.batch, options.seed)
        per_pass = self._order.per_pass
        self._total = options.total(per_pass)
        self._evaluate = options.evaluate or per_pass
        self._checkpoint = options.checkpoint or self._evaluate
        self._order.share(0, 0, accelerator.num_processes, options.part)  # told before anything
        self._now = Progression()

    def run(self, *, resume: bool, logs: Path | None, progress: Progress) -> Outcome:
        accelerator = self._accelerator
        torch.manual_seed(self._options.seed + accelerator.process_index)
        self._prepare()
        self._begin(resume)
        main = accelerator.is_main_process
        curves = Curves(logs if main else None, self._now.step)
        before = self._now.seconds
        pace = Pace(self._total, self._training.examples.unit, progress if main else silent)
        try:
            while self._now.step < self._total and not self._stopped:
                loss, norm, units = self._step()
                pace.step(self._now.step, units, loss)
                curves.train(self._now.step, loss, self._rate, norm, pace.rate)
                self._now.seconds = before + pace.seconds
                self._look(curves)
        finally:
            curves.close()
        report = LoopReport(
            self._now.step, self._total, self._best, tuple(self._now.losses),
            tuple(self._now.judgements), accelerator.num_processes, self._now.seconds, pace.rate,
            pace.unit, self._options.precision,
        )  # fmt: skip
        return Outcome(report, self._result(), main)

    def _prepare(self) -> None:
        training, options = self._training, self._options
        lesson = Lesson(training.speaker, training.objective, training.task)
        optimizer = torch.optim.AdamW(_groups(lesson, options.weight_decay), lr=options.rate)
        if options.keep_zeros:
            Masks.of(training.speaker).hold(training.speaker, optimizer)
        scheduler = _scheduler(options, optimizer, self._total)
        self._lesson, self._optimizer = self._accelerator.prepare(lesson, optimizer)
        # Not prepared: accelerate would move it once for every process.
        self._scheduler = scheduler
        self._accelerator.register_for_checkpointing(scheduler)

    def _begin(self, resume: bool) -> None:
        with self._accelerator.main_process_first():
            last = self._store.open(resume=resume or not self._accelerator.is_main_process)
        if last is not None:
            self._accelerator.load_state(str(last))
            self._now = Store.progression(last)

    @property
    def _rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def _stopped(self) -> bool:
        patience = self._options.patience
        return patience is not None and self._now.stale >= patience

    @property
    def _best(self) -> int:
        return self._now.step if self._now.best < 0 else self._now.best

    def _step(self) -> tuple[float, float, int]:
        """Move the weights once; the mean loss, the gradient's norm, and the units."""
        accelerator, order = self._accelerator, self._order
        self._lesson.train()
        parts = order.share(self._now.step, accelerator.process_index,
                            accelerator.num_processes, self._options.part)  # fmt: skip
        sums = torch.zeros(3, dtype=torch.float64)
        for number, rows in enumerate(parts):
            last = number == len(parts) - 1
            batch = self._batch(rows)
            targets = self._training.teacher.targets(batch)
            # gradients are exchanged once, after the last part
            with nullcontext() if last else accelerator.no_sync(self._lesson):
                found = self._lesson(batch, targets)
                accelerator.backward(found[0] / order.size)
            sums[:2] += found[:2].detach().double().cpu()
            sums[2] += self._training.examples.size(batch)
        total, count, units = accelerator.reduce(sums.to(self._exchange), "sum").tolist()
        # Data-parallel wrappers average over processes, and every part was divided by `size`.
        self._scale(accelerator.num_processes * order.size / max(count, 1))
        loss = total / max(count, 1)
        norm = self._move(loss)
        self._now.step += 1
        self._now.losses.append(loss)
        return loss, norm, int(units)

    @property
    def _exchange(self) -> torch.device:
        return torch.device(self._accelerator.device)

    def _scale(self, factor: float) -> None:
        for parameter in self._lesson.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _move(self, loss: float) -> float:
        clip = self._options.clip or math.inf
        norm = float(self._accelerator.clip_grad_norm_(self._lesson.parameters(), clip))
        if not math.isfinite(loss):
            raise RecipeError(
                f"the loss of step {self._now.step + 1} is {loss}",
                hint="a lower training.rate, or precision: float32; the last checkpoint is kept",
            )
        self._optimizer.step()
        if not self._accelerator.optimizer_step_was_skipped:
            self._scheduler.step()
        self._optimizer.zero_grad()
        return norm

    def _batch(self, rows: Tensor) -> Batch:
        device = self._accelerator.device
        batch: Batch = {
            name: value.to(device, non_blocking=True)
            for name, value in self._training.examples.batch(rows).items()
        }
        if self._training.before is not None and self._lesson.training:
            plain = self._accelerator.unwrap_model(self._lesson).speaker
            batch = self._training.before(plain, batch)
        return batch

    def _look(self, curves: Curves) -> None:
        """Judge, keep what is best and write a checkpoint, each when its time has come."""
        step, last = self._now.step, self._now.step == self._total
        if len(self._training.examples.held) and (step % self._evaluate == 0 or last):
            found = self._judge()
            curves.held(found)
            if self._now.judge(found):
                weights = self._accelerator.get_state_dict(self._lesson)
                if self._accelerator.is_main_process:
                    self._store.keep(step, weights)
        if step % self._checkpoint == 0 or last or self._stopped:
            self._save()

    @torch.no_grad()
    def _judge(self) -> Judgement:
        self._lesson.eval()
        sums = torch.zeros(5, dtype=torch.float64)
        for rows, counts in self._held():
            batch = self._batch(rows)
            found = self._lesson(batch, self._training.teacher.targets(batch), labels=True)
            sums += counts * found.double().cpu()
        sums = self._accelerator.reduce(sums.to(self._exchange), "sum").cpu()
        loss, rows_, nll, right, labels = sums.tolist()
        known = labels > 0
        return Judgement(
            self._now.step,
            loss / max(rows_, 1),
            nll / labels if known else None,
            right / labels if known else None,
        )

    def _held(self) -> Iterator[tuple[Tensor, int]]:
        """Rows for this process, and 1; all processes have as many calls, some of them for 0."""
        accelerator, held = self._accelerator, self._training.examples.held
        processes = accelerator.num_processes
        size = processes * (self._options.part or -(-self._order.size // processes))
        for start in range(0, len(held), size):
            rows = held[start : start + size]
            own = rows.tensor_split(processes)[accelerator.process_index]
            yield (own, 1) if len(own) else (rows[:1], 0)

    def _save(self) -> None:
        step, accelerator = self._now.step, self._accelerator
        if accelerator.is_main_process:
            self._store.clear(step)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(self._store.draft(step)))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            self._store.publish(step, self._now)
        accelerator.wait_for_everyone()

    def _result(self) -> dict[str, Tensor]:
        weights = self._accelerator.get_state_dict(self._lesson)
        if not self._accelerator.is_main_process:
            return {}
        if self._now.best >= 0:
            weights = self._store.best(self._now.best)
        return Lesson.student(weights)


def _groups(lesson: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices with decay, vectors without."""
    found = [p for p in lesson.parameters() if p.requires_grad]
    groups = (([p for p in found if p.dim() > 1], decay), ([p for p in found if p.dim() < 2], 0.0))
    return [{"params": parameters, "weight_decay": of} for parameters, of in groups if parameters]


def _scheduler(options: LoopOptions, optimizer: torch.optim.Optimizer, total: int) -> Any:
    try:
        from transformers import get_scheduler  # noqa: PLC0415  (an optional extra)
    except ImportError as error:
        raise CapabilityError(
            "schedules of the learning rate are transformers', which is not installed",
            hint="pip install 'ensemble-to-engine[hf,distill]'",
        ) from error
    try:
        return get_scheduler(
            options.schedule, optimizer, num_warmup_steps=round(options.warmup * total),
            num_training_steps=total,
        )  # fmt: skip
    except ValueError as error:
        raise RecipeError(f"training.schedule: {error}") from error
