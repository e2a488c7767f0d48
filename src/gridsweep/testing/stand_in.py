"""A stand-in worker that follows the whole protocol but does not train.

`python -m gridsweep.testing ATTEMPT_FOLDER` stands in for `python -m gridsweep.train ATTEMPT_FOLDER`. Its loss is a
function of seed, hyperparameters and step, carried from step to step in floating point, so that a step too many or
too few, or a step from a wrong checkpoint, shows in the last digit. Two environment variables control it:

    GRIDSWEEP_STEP_SECONDS   how long a step takes (0.01)
    GRIDSWEEP_MISBEHAVE      `WHAT:PREFIX,...`: experiments whose id starts with PREFIX go wrong: `nan` (fails
                             alone) or, with all members of its attempt, `hang` (deaf to SIGTERM too), `crash` (an error
                             is reported), `vanish` (killed at its third step), `slow` (a step takes five times as
                             long), `long` (says two steps for each that it makes), `wait` (after five
                             steps it waits until SIGTERM, so that it never ends before a test interrupts it)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from gridsweep.records.attempts import AttemptFolder, EnergyLine, Outcome, Part, Progress, Result, now
from gridsweep.records.disk import DISK, patiently, unusable
from gridsweep.records.files import verify
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Checkpoint

STAND_IN = (sys.executable, "-P", "-m", "gridsweep.testing")
"""The command of the stand-in, to pass to an executor in place of its default."""

WATTS = 15.0


INITIAL = 4.042
"""The validation loss before the first step: the same for all, as over one base and one data."""


def loss_after(part: Part, step: int, loss: float | None = None) -> float:
    """Return the loss after one more step; it depends on every step before."""
    if loss is None:
        return 4.0 + part.seed * 1e-3
    pull = part.params.lr * 300 * part.params.alpha / 32 + part.params.r * 1e-5 + part.params.dropout * 1e-4
    return loss - pull * math.sin(loss * 1e3 + step) ** 2 * 0.05 * loss


def misbehaviour(experiment: str) -> str:
    """Return the fault that this experiment is told to show."""
    for rule in os.environ.get("GRIDSWEEP_MISBEHAVE", "").split(","):
        what, _, prefix = rule.partition(":")
        if prefix and experiment.startswith(prefix):
            return what
    return ""


def losses_of(loss: float, samples: int) -> Losses:
    """Return losses with that mean on the validation samples shared by all experiments; some samples are harder."""
    middle = (samples - 1) / 2
    values = (loss + 0.1 * (n - middle) + 1e-4 * math.sin(loss * 1e3 + n) for n in range(samples))
    return Losses(tuple(values), (10.0,) * samples)


def saved_loss(folder: AttemptFolder, part: Part) -> float:
    """Return the loss from which a member resumes. Raise `ValueError` if its checkpoint differs from the saved one."""
    if part.checkpoint is None:
        return loss_after(part, 0)
    saved = folder.store / part.checkpoint.path
    if not verify(saved, part.checkpoint.digest):
        raise ValueError(f"the checkpoint {saved} differs from the saved one")
    return float.fromhex(patiently((saved / "loss.txt").read_text))


def work(folder: AttemptFolder) -> None:
    """Train one stint's members side by side, as the real worker would, but with arithmetic."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    folder.sign_in()
    try:
        worker = StandIn(folder)
    except ValueError as error:
        folder.finish(Result(now(), (), str(error)))
        raise SystemExit(1) from None
    folder.append(Progress(now(), "training", worker.first, {}))
    for step in range(worker.first + 1, worker.last + 1):
        worker.wait(step, asked)
        worker.train(step)
        worker.drop_diverged(step)
        if not worker.alive:
            worker.finish(())
            return
        pausing = bool(asked) and step < worker.last
        if pausing or worker.saves_at(step):
            worker.save(step)
        if pausing:
            worker.pause(step)
            return
    worker.end()


class StandIn:
    """The members of one attempt that are `alive`, from step `first` to `last`, with their present losses.

    Raise `ValueError` if a crash was requested, or if a checkpoint differs from the saved one.
    """

    def __init__(self, folder: AttemptFolder):
        self.folder, self.assignment = folder, folder.assignment()
        self.alive = {part.experiment: part for part in self.assignment.members}
        ((self.first, self.last),) = {(part.from_step, part.to_step) for part in self.assignment.members}
        self.wrongs = {misbehaviour(id) for id in self.alive}
        if "crash" in self.wrongs:
            raise ValueError("the stand-in was told to crash")
        self.losses = {id: saved_loss(folder, part) for id, part in self.alive.items()}
        self.saved = {id: part.checkpoint for id, part in self.alive.items()}
        self.failed: list[Outcome] = []
        self.strides = 2 if "long" in self.wrongs else 1
        seconds = float(os.environ.get("GRIDSWEEP_STEP_SECONDS", "0.01"))
        self.pace = seconds * self.strides * (5 if "slow" in self.wrongs else 1)

    def train(self, step: int) -> None:
        """Make one step, and record its energy and losses."""
        begun, told = now(), self.first + (step - self.first) * self.strides
        time.sleep(self.pace)
        if "hang" in self.wrongs and step > 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        if "vanish" in self.wrongs and step == self.first + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        self.losses = {id: loss_after(part, step, self.losses[id]) for id, part in self.alive.items()}
        seconds = (now() - begun) / timedelta(seconds=1)
        self.folder.append(EnergyLine(begun, seconds, WATTS / 1000 * seconds / 3600, "modelled", told))
        self.folder.append(Progress(now(), "training", told, dict(self.losses)))

    def wait(self, step: int, asked: Sequence[int]) -> None:
        """Wait for a signal before the sixth step, if told to; for ten minutes at most, should a test leave it."""
        if "wait" in self.wrongs and step == self.first + 6:
            end = time.monotonic() + 600
            while not asked and time.monotonic() < end:
                time.sleep(0.005)

    def drop_diverged(self, step: int) -> None:
        """Fail the members that were told to have no finite loss."""
        for id in [id for id in self.alive if misbehaviour(id) == "nan" and step >= 3]:
            self.failed.append(Outcome(id, "failed", step, f"the training loss is nan at step {step}"))
            del self.alive[id]

    def saves_at(self, step: int) -> bool:
        """Return whether a step ends with a checkpoint: at a regular interval, and at a rung."""
        return step % self.assignment.recipe.checkpoint_every == 0 or self.last == step < self.assignment.total_steps

    def save(self, step: int) -> None:
        """Write a checkpoint of every active member."""
        for id in self.alive:
            patiently(partial(self._save_one, id, step))
        self.folder.forget_checkpoints()
        self.saved.update({id: self.folder.checkpoint(id) for id in self.alive})

    def _save_one(self, id: str, step: int) -> None:
        with self.folder.saving(id, step) as draft:
            (draft / "loss.txt").write_text(self.losses[id].hex())

    def pause(self, step: int) -> None:
        """End at the checkpoint just saved, as asked."""
        self.finish(Outcome(id, "paused", step, checkpoint=self.saved[id]) for id in self.alive)

    def end(self) -> None:
        """End after the last step: at a rung, or with all steps done."""
        facts, last = {"worker": "stand-in"}, self.last
        if last < self.assignment.total_steps:
            self.finish(
                (reached(part, last, self.losses[id], self.saved[id]) for id, part in self.alive.items()), facts
            )
        else:
            self.finish((done(self.folder, part, last, self.losses[id]) for id, part in self.alive.items()), facts)

    def finish(self, outcomes: Iterable[Outcome], facts: dict[str, str] | None = None) -> None:
        """Write the result: an outcome for every member, in the order of the assignment."""
        ended = {outcome.experiment: outcome for outcome in (*self.failed, *outcomes)}
        members = tuple(ended[part.experiment] for part in self.assignment.members)
        self.folder.finish(Result(now(), members, facts=facts))


def reached(part: Part, step: int, loss: float, checkpoint: Checkpoint | None) -> Outcome:
    """Return the outcome at a rung, evaluated on a part of the samples."""
    return Outcome(part.experiment, "reached", step, "", loss, None, INITIAL, checkpoint, losses=losses_of(loss, 8))


def done(folder: AttemptFolder, part: Part, step: int, loss: float) -> Outcome:
    """Return the outcome at the end, with a dummy adapter."""

    def save() -> None:
        with folder.saving_adapter(part.experiment, step) as draft:
            (draft / "adapter_config.json").write_text(f'{{"r": {part.params.r}}}\n')

    patiently(save)
    name = str((folder.path / "adapters" / part.experiment).relative_to(folder.store))
    return Outcome(part.experiment, "done", step, "", loss, loss, INITIAL, None, name, losses_of(loss, 32), loss)


def main(arguments: Sequence[str]) -> None:
    folder = AttemptFolder(Path(arguments[0]))
    try:
        work(folder)
    except FileExistsError as error:
        raise SystemExit(f"another worker has begun this attempt: {error}") from None
    except OSError as error:
        if error.errno not in DISK:
            raise
        try:
            folder.finish(Result(now(), (), unusable(error), storage=True))
        except OSError:
            print(unusable(error), file=sys.stderr, flush=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1:])
