"""Run an attempt from its assignment to its result: load, train, evaluate, save; stop when requested."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal  # pynvml has no types, and tests may pass a double

import pynvml

from gridsweep.energy.meters import meter_for
from gridsweep.energy.power_limits import limited
from gridsweep.errors import SpecError
from gridsweep.records.attempts import Assignment, AttemptFolder, Outcome, Result, now
from gridsweep.records.disk import patiently
from gridsweep.records.files import digest
from gridsweep.sweep.losses import DECIDES, Losses
from gridsweep.sweep.stints import Checkpoint
from gridsweep.train.device import accelerator_index
from gridsweep.train.diary import Diary
from gridsweep.train.loading import Ready, load

if TYPE_CHECKING:
    from gridsweep.train.lean.group import Scores

MEASURE_FROM = 2000
"""The least remaining work, in steps times members, for which measuring the best group size pays off."""
MEASURE_SECONDS = 5.0
MEBIBYTE = 2**20


class Stopped(Exception):
    """This worker was asked to stop."""


class Worker:
    """Executes the assignment in an attempt's folder. `stopping()` returns whether a stop was requested.

    `step` is the number of optimizer steps made; `saved` holds the checkpoints to resume from, all of step
    `saved_step`; `outcomes` holds the outcomes of finished members. Raise `SpecError` if members cannot share an
    attempt.
    """

    def __init__(self, folder: AttemptFolder, assignment: Assignment, stopping: Callable[[], bool], nvml: Any = pynvml):
        self.folder, self.assignment, self.stopping, self.nvml = folder, assignment, stopping, nvml
        self.parts = {part.experiment: part for part in assignment.members}
        ways = {(part.from_step, part.to_step, part.seed) for part in assignment.members}
        if len(ways) != 1 or len(self.parts) != len(assignment.members):
            told = (f"{p.experiment} (seed {p.seed}) from {p.from_step} to {p.to_step}" for p in assignment.members)
            raise SpecError(
                f"members of an attempt are different ones that make the same steps in one order, not {', '.join(told)}"
            )
        ((self.step, self.to_step, _),) = ways
        self.saved_step = self.step
        self.saved = {name: part.checkpoint for name, part in self.parts.items() if part.checkpoint}
        self.outcomes: dict[str, Outcome] = {}
        self.accelerator = accelerator_index(nvml)
        self.diary = Diary(folder, meter_for(assignment.device, self.accelerator, nvml=nvml))

    def run(self) -> Result:
        """Work until all members are done or failed for good, or a stop is requested. Other errors propagate."""
        facts: dict[str, str] = {}
        try:
            with limited(self.assignment.device, self.accelerator, self.nvml) as told:
                if told:
                    facts["power_limit"] = told
                    print(f"power limit of {self.assignment.device.name}: {told}", flush=True)
                self._work(facts)
        except Stopped:
            for name in self.parts.keys() - self.outcomes.keys():
                saved = self.saved.get(name)
                self.outcomes[name] = Outcome(name, "paused", saved.step if saved else 0, checkpoint=saved)
        except Exception:
            with suppress(OSError):  # perhaps a full disk; the first error is the one to report
                self.diary.close(self.step)
            raise
        self.diary.close(self.step)
        return Result(now(), tuple(self.outcomes[name] for name in self.parts), facts=facts)

    def _work(self, facts: dict[str, str]) -> None:
        """Load, train, evaluate. Raise `Stopped` on a stop request."""
        self.diary.tell("loading", self.step, surely=True)
        ready = load(self.assignment, self.folder.store, self._breathing("loading"))
        facts.update(ready.facts)
        self.diary.tell("loading", self.step, surely=True, constants=ready.constants)
        gc.freeze()  # loaded objects stay; from here on the collector looks only at new objects
        gc.enable()
        on_gpu = ready.facts["device"] != "cpu"
        if on_gpu != (self.accelerator is not None):
            # torch and NVML disagree: a GPU that torch cannot use, or a GPU unknown to NVML.
            self.diary.measure_with(meter_for(self.assignment.device, 0 if on_gpu else None, nvml=self.nvml), self.step)
        else:
            self.diary.lap(self.step)
        self.diary.tell("training", self.step, surely=True)
        self._look_at_the_base(ready)
        speed = self._measured(ready)
        try:
            self._make_steps(ready, facts)
        finally:
            if (count := len(self.parts)) > 1:  # the plan may have shrunk during the steps for lack of memory
                facts["group"] = f"{count} members, {min(ready.group.plan.members, count)} at a time{speed}"
        if self.to_step == self.assignment.total_steps:
            self._end(ready)
        else:
            self._reach(ready)

    def _look_at_the_base(self, ready: Ready) -> None:
        """Evaluate the loss before the first step; all members share it, because a new adapter changes nothing."""
        new = [history for history in ready.group.histories.values() if history.initial_validation_loss is None]
        if new:
            loss = ready.group.evaluate_base(ready.validation, self._breathing("evaluating")).mean
            if not math.isfinite(loss):
                raise SpecError(
                    f"the loss of {self.assignment.model.id} before training is {loss} in {ready.constants['dtype']}; "
                    "its weights are damaged, or too large for that data type: get its files again"
                )
            for history in new:
                history.initial_validation_loss = loss

    def _measured(self, ready: Ready) -> str:
        """Measure how many members to train at a time, if that pays off; return the best speed as text."""
        if len(self.parts) == 1 or (self.to_step - self.step) * len(self.parts) < MEASURE_FROM:
            return ""
        from gridsweep.train.lean.measure import measure

        room = ready.room
        ahead = self.to_step - self.step
        measured = measure(
            ready.group,
            rounds=2,
            seconds=MEASURE_SECONDS,
            ahead=ahead,
            fits=lambda plan: room is None or room.has(plan),
        )
        ready.group.plan = measured.plan(ready.group.plan)
        return "" if measured.best is None else f", {measured.best.tokens_per_s:,.0f} tokens/s"

    def _make_steps(self, ready: Ready, facts: dict[str, str]) -> None:
        group, every = ready.group, max(1, self.assignment.recipe.checkpoint_every)
        first = self.step
        while self.step < self.to_step and group.members:
            try:
                if self.step == first:
                    losses = self._first_step(ready, facts)
                else:
                    losses = group.step(self.step, self._breathing("training"))
            except Stopped:
                self._save(ready)
                raise
            self._fail(group.diverged)
            if not group.members:
                return
            self.step += 1
            last = self.step == self.to_step
            self.diary.tell("training", self.step, {name: losses[name] for name in group.members}, surely=last)
            # Save one step before the end, so that a stop during the last evaluation leaves one step to repeat.
            # A rung also saves its last step, but only after the evaluation: an experiment that resumes from that
            # checkpoint has then been evaluated at the rung.
            if (self.step % every == 0 and not last) or self.step == self.to_step - 1:
                self._save(ready)

    def _end(self, ready: Ready) -> None:
        """Evaluate all members after the last step, save their adapters, and set their outcomes."""
        from gridsweep.train.samples import judging

        judges = judging(len(ready.validation), self.assignment.recipe.seed)
        group, breathe = ready.group, self._breathing("evaluating")
        scores = self._finite(ready, group.evaluate(ready.validation, breathe))
        averaged = group.evaluate(ready.validation, breathe, averaged=True)
        for name, score in scores.items():
            patiently(partial(self._save_adapter, ready, name))
            mean = averaged[name].mean
            self.outcomes[name] = Outcome(
                name,
                "done",
                self.step,
                train_loss=self._recent(ready, name),
                validation_loss=score.mean,
                initial_validation_loss=group.histories[name].initial_validation_loss,
                adapter=str((self.folder.path / "adapters" / name).relative_to(self.folder.store)),
                losses=losses_of(score),
                averaged_validation_loss=mean if math.isfinite(mean) else None,
                judged=losses_of(averaged[name].of(judges)) if math.isfinite(mean) else None,
            )

    def _reach(self, ready: Ready) -> None:
        """Save all members at a rung and set their outcomes; evaluate averaged weights if the rung is decided by them.

        That is the case for schedules in which the learning rate decays.
        """
        from gridsweep.train.samples import judging

        group, recipe = ready.group, self.assignment.recipe
        scores: dict[str, Scores] = {}
        judging_by = self.assignment.judging
        if (judging_by.score if judging_by else DECIDES.get(recipe.learning_rate_schedule)) == "averaged":
            judges = [ready.validation[n] for n in judging(len(ready.validation), recipe.seed)]
            scores = group.evaluate(judges, self._breathing("evaluating"), averaged=True)
            scores = self._finite(ready, scores)
        self._save(ready)
        for name in group.members:
            self.outcomes[name] = Outcome(
                name,
                "reached",
                self.step,
                train_loss=self._recent(ready, name),
                initial_validation_loss=group.histories[name].initial_validation_loss,
                checkpoint=self.saved[name],
                losses=losses_of(scores[name]) if name in scores else None,
            )

    def _finite(self, ready: Ready, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        """Return the scores with a finite loss; the other members fail and leave the group."""
        lost = {n: f"the validation loss is {s.mean} at step {self.step}" for n, s in scores.items() if not finite(s)}
        self._fail(lost)
        ready.group.drop(lost)
        return {name: score for name, score in scores.items() if name not in lost}

    def _fail(self, reasons: Mapping[str, str]) -> None:
        """Mark these members as failed for good: a retry would fail again."""
        for name in reasons.keys() - self.outcomes.keys():
            self.outcomes[name] = Outcome(name, "failed", self.step, reason=reasons[name])

    @staticmethod
    def _recent(ready: Ready, name: str) -> float:
        recent = ready.group.histories[name].recent
        return sum(recent) / len(recent)

    def _save(self, ready: Ready) -> None:
        """Save checkpoints of the current step, unless they exist."""
        if self.step == self.saved_step:
            return
        for name in ready.group.members:
            patiently(partial(self._save_one, ready, name))
            final = self.folder.path / "checkpoints" / str(self.step) / name
            self.saved[name] = Checkpoint(name, self.step, str(final.relative_to(self.folder.store)), digest(final))
        self.saved_step = self.step
        self.folder.forget_checkpoints()
        self.diary.lap(self.step)

    def _save_one(self, ready: Ready, name: str) -> None:
        with self.folder.saving(name, self.step) as draft:
            ready.group.save(name, draft)

    def _save_adapter(self, ready: Ready, name: str) -> None:
        with self.folder.saving_adapter(name, self.step) as draft:
            ready.group.save_adapter(name, draft)

    def _first_step(self, ready: Ready, facts: dict[str, str]) -> dict[str, float]:
        """Make the first step, record predicted and measured memory, and correct the plan for the following steps."""
        from gridsweep.train.peak import Peak

        group, room, breathe = ready.group, ready.room, self._breathing("training")
        if room is None:
            return group.step(self.step, breathe)
        plan = replace(group.plan)
        facts["memory_predicted_mb"] = f"{room.predicted(plan) / MEBIBYTE:.0f}"
        peak = Peak(group.device)
        with room.counting(group) as taken:
            losses = group.step(self.step, breathe)
        resident = peak.resident()  # None on a GPU, where torch's own peak is what was taken
        most = taken() if resident is None else resident
        facts["memory_peak_mb"] = f"{most / MEBIBYTE:.0f}"
        if most > room.memory:
            print(
                f"the first step took {most / 1e9:.2f} GB, and this worker has {room.memory / 1e9:.2f} GB; lower "
                "recipe.max_length or pack",
                flush=True,
            )
        if group.plan == plan:  # otherwise the plan did not fit and was made smaller
            group.plan = replace(room.corrected(plan, taken(), resident))
        return losses

    def _breathing(self, phase: Literal["loading", "training", "evaluating"]) -> Callable[[], None]:
        """Return a function to call often: it reports that work continues, and raises `Stopped` on a stop request."""

        def breathe() -> None:
            if self.stopping():
                raise Stopped
            if phase == "evaluating":
                self.diary.tell(phase, self.step)

        return breathe


def losses_of(scores: Scores) -> Losses:
    """Return the losses by sample, as means over tokens."""
    pairs = list(zip(scores.sums.tolist(), scores.counts.tolist(), strict=True))
    return Losses(tuple(total / max(1, count) for total, count in pairs), tuple(float(count) for _, count in pairs))


def finite(scores: Scores) -> bool:
    return math.isfinite(scores.mean)
