"""An attempt from its assignment to its result: load, train, evaluate, save; stop where asked."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from gridsweep.attempt import Assignment, AttemptFolder, Outcome, Result, digest, now
from gridsweep.errors import SpecError
from gridsweep.meters import meter_for
from gridsweep.stint import Checkpoint
from gridsweep.train.device import accelerator_index
from gridsweep.train.diary import Diary
from gridsweep.train.loading import Ready, load


class Stopped(Exception):
    """Somebody asked this worker to stop."""


class Worker:
    """Does what an attempt's folder assigns. `stopping()` says whether it was asked to stop.

    `step` is how many optimizer steps are made; `saved` is the checkpoint to go on from.
    """

    def __init__(self, folder: AttemptFolder, assignment: Assignment, stopping: Callable[[], bool]):
        if len(assignment.members) != 1:
            raise SpecError(f"this worker trains one experiment at a time, not {len(assignment.members)}")
        self.folder, self.assignment, self.stopping = folder, assignment, stopping
        self.part = assignment.members[0]
        self.step, self.saved = self.part.from_step, self.part.checkpoint
        self.accelerator = accelerator_index()
        self.diary = Diary(folder, self.part.experiment, meter_for(assignment.device, self.accelerator))

    def run(self) -> Result:
        """Work until done, failed for good, or asked to stop. Raises whatever else goes wrong."""
        facts: dict[str, str] = {}
        try:
            outcome = self._outcome(facts)
        except Stopped:
            step = self.saved.step if self.saved else 0
            outcome = Outcome(self.part.experiment, "paused", step, checkpoint=self.saved)
        except Exception:
            with suppress(OSError):  # a full disk, perhaps; the first error is the one to tell
                self.diary.close(self.step)
            raise
        self.diary.close(self.step)
        return Result(now(), (outcome,), facts=facts)

    def _outcome(self, facts: dict[str, str]) -> Outcome:
        """Load, train, evaluate. Raises `Stopped`."""
        part = self.part
        self.diary.tell("loading", self.step, surely=True)
        ready = load(self.assignment, part, self.folder.store, self._breathing("loading"))
        from gridsweep.train.training import Diverged  # after torch

        facts.update(ready.facts)
        gc.freeze()  # what is loaded stays; from here on garbage is looked for among what is new
        gc.enable()
        on_gpu = ready.facts["device"] != "cpu"
        if on_gpu != (self.accelerator is not None):
            # There is a GPU that torch cannot use, or one that NVML does not know.
            self.diary.measure_with(meter_for(self.assignment.device, 0 if on_gpu else None), self.step)
        else:
            self.diary.lap(self.step)
        self.diary.tell("training", self.step, surely=True)
        try:
            return self._trained(ready)
        except Diverged as error:
            return Outcome(part.experiment, "failed", self.step, reason=str(error))

    def _trained(self, ready: Ready) -> Outcome:
        part, training, breathe = self.part, ready.training, self._breathing("evaluating")
        history = training.history
        if history.initial_validation_loss is None:
            history.initial_validation_loss = training.evaluate(ready.validation, self.step, breathe)
        self._make_steps(ready)
        validation_loss = training.evaluate(ready.validation, self.step, breathe)
        with self.folder.saving_adapter(part.experiment, self.step) as draft:
            training.save_adapter(draft)
        return Outcome(
            part.experiment,
            "done",
            self.step,
            train_loss=sum(history.recent) / len(history.recent),
            validation_loss=validation_loss,
            initial_validation_loss=history.initial_validation_loss,
            checkpoint=self.saved if self.saved and self.saved.step == self.step else None,
            adapter=str((self.folder.path / "adapters" / part.experiment).relative_to(self.folder.store)),
        )

    def _make_steps(self, ready: Ready) -> None:
        part, total = self.part, self.assignment.total_steps
        every = max(1, self.assignment.recipe.checkpoint_every)
        for step in range(part.from_step, part.to_step):
            try:
                loss = ready.training.step(step, self._breathing("training"))
            except Stopped:
                self._save(ready)
                raise
            self.step = step + 1
            last = self.step == part.to_step
            self.diary.tell("training", self.step, loss, surely=last)
            # One step before the end, so that a stop during the last evaluation leaves work, but hardly any,
            # to do again; at the end only where others go on from here.
            due = self.step % every == 0 and not last
            if due or self.step == part.to_step - 1 or (last and part.to_step < total):
                self._save(ready)

    def _save(self, ready: Ready) -> None:
        """Save a checkpoint of the present step, unless there is one."""
        if self.step == (self.saved.step if self.saved else 0):
            return
        experiment = self.part.experiment
        with self.folder.saving(experiment, self.step) as draft:
            ready.training.save(draft)
        final = self.folder.path / "checkpoints" / str(self.step) / experiment
        self.saved = Checkpoint(experiment, self.step, str(final.relative_to(self.folder.store)), digest(final))
        self.folder.forget_checkpoints()
        self.diary.lap(self.step)

    def _breathing(self, phase: Literal["loading", "training", "evaluating"]) -> Callable[[], None]:
        """To be called often: tells that work goes on, and raises `Stopped` when it should not."""

        def breathe() -> None:
            if self.stopping():
                raise Stopped
            if phase == "evaluating":
                self.diary.tell(phase, self.step)

        return breathe
