"""Doubles that come with the package: a worker that trains nothing, fast, but keeps the whole protocol.

`python -m gridsweep.testing ATTEMPT_FOLDER` stands in for `python -m gridsweep.train ATTEMPT_FOLDER`. Its loss is a
function of seed, hyperparameters and step, carried from step to step in floating point, so that a step too many or
too few, or one from a wrong checkpoint, shows in the last digit. Two variables of the environment steer it:

    GRIDSWEEP_STEP_SECONDS   how long a step takes (0.01)
    GRIDSWEEP_MISBEHAVE      `WHAT:PREFIX,...`: experiments whose id starts with PREFIX go wrong: `nan` (fails
                             alone) or, with all members of its attempt, `hang` (deaf to SIGTERM too), `crash` (an error
                             is reported), `vanish` (killed at its third step)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from gridsweep.records.attempts import AttemptFolder, EnergyLine, Outcome, Part, Progress, Result, now
from gridsweep.records.files import verify
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Checkpoint

STAND_IN = (sys.executable, "-m", "gridsweep.testing")
"""The command to hand to an executor in place of its own."""

WATTS = 15.0


def loss_after(part: Part, step: int, loss: float | None = None) -> float:
    """One more step of a loss that depends on every step before it."""
    if loss is None:
        return 4.0 + part.seed * 1e-3
    pull = part.params.lr * 300 * part.params.alpha / 32 + part.params.r * 1e-5 + part.params.dropout * 1e-4
    return loss - pull * math.sin(loss * 1e3 + step) ** 2 * 0.05 * loss


def misbehaviour(experiment: str) -> str:
    """What this experiment is told to do wrong."""
    for rule in os.environ.get("GRIDSWEEP_MISBEHAVE", "").split(","):
        what, _, prefix = rule.partition(":")
        if prefix and experiment.startswith(prefix):
            return what
    return ""


def losses_of(loss: float, samples: int) -> Losses:
    """Losses of that mean on validation samples that all experiments share, some harder than others."""
    middle = (samples - 1) / 2
    values = (loss + 0.1 * (n - middle) + 1e-4 * math.sin(loss * 1e3 + n) for n in range(samples))
    return Losses(tuple(values), (10.0,) * samples)


def saved_loss(folder: AttemptFolder, part: Part) -> float:
    """The loss a member goes on from. Raises `ValueError` where its checkpoint is not what was saved."""
    if part.checkpoint is None:
        return loss_after(part, 0)
    saved = folder.store / part.checkpoint.path
    if not verify(saved, part.checkpoint.digest):
        raise ValueError(f"the checkpoint {saved} is not what was saved")
    return float.fromhex((saved / "loss.txt").read_text())


def work(folder: AttemptFolder) -> None:
    """Train one stint's members side by side, as the real worker would, but with arithmetic."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    folder.sign_in()
    assignment = folder.assignment()
    alive = {part.experiment: part for part in assignment.members}
    ((first, last),) = {(part.from_step, part.to_step) for part in assignment.members}
    wrongs = {misbehaviour(id) for id in alive}
    try:
        if "crash" in wrongs:
            raise ValueError("the stand-in was told to crash")
        losses = {id: saved_loss(folder, part) for id, part in alive.items()}
    except ValueError as error:
        folder.finish(Result(now(), (), str(error)))
        raise SystemExit(1) from None
    pace = float(os.environ.get("GRIDSWEEP_STEP_SECONDS", "0.01"))
    saved = {id: part.checkpoint for id, part in alive.items()}
    failed: list[Outcome] = []
    folder.append(Progress(now(), "training", first, {}))

    def save(step: int) -> None:
        for id in alive:
            with folder.saving(id, step) as draft:
                (draft / "loss.txt").write_text(losses[id].hex())
        folder.forget_checkpoints()
        saved.update({id: folder.checkpoint(id) for id in alive})

    def finish(outcomes: Iterable[Outcome], facts: dict[str, str] | None = None) -> None:
        ended = {outcome.experiment: outcome for outcome in (*failed, *outcomes)}
        folder.finish(Result(now(), tuple(ended[part.experiment] for part in assignment.members), facts=facts))

    for step in range(first + 1, last + 1):
        begun = now()
        time.sleep(pace)
        if "hang" in wrongs and step > 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        if "vanish" in wrongs and step == first + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        losses = {id: loss_after(part, step, losses[id]) for id, part in alive.items()}
        seconds = (now() - begun) / timedelta(seconds=1)
        folder.append(EnergyLine(begun, seconds, WATTS / 1000 * seconds / 3600, "modelled", step))
        folder.append(Progress(now(), "training", step, dict(losses)))
        for id in [id for id in alive if misbehaviour(id) == "nan" and step >= 3]:
            failed.append(Outcome(id, "failed", step, f"the training loss is nan at step {step}"))
            del alive[id]
        if not alive:
            finish(())
            return
        pausing = bool(asked) and step < last
        if pausing or step % assignment.recipe.checkpoint_every == 0 or step == last < assignment.total_steps:
            save(step)
        if pausing:
            finish(Outcome(id, "paused", step, checkpoint=saved[id]) for id in alive)
            return
    facts = {"worker": "stand-in"}
    if last < assignment.total_steps:
        finish((reached(part, last, losses[id], saved[id]) for id, part in alive.items()), facts)
    else:
        finish((done(folder, part, last, losses[id]) for id, part in alive.items()), facts)


def reached(part: Part, step: int, loss: float, checkpoint: Checkpoint | None) -> Outcome:
    """At a rung: judged by a part of the samples."""
    return Outcome(
        part.experiment, "reached", step, "", loss, None, loss_after(part, 0), checkpoint, losses=losses_of(loss, 8)
    )


def done(folder: AttemptFolder, part: Part, step: int, loss: float) -> Outcome:
    """At the end, with an adapter that is none."""
    adapter = folder.path / "adapters" / part.experiment
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_config.json").write_text(f'{{"r": {part.params.r}}}\n')
    name = str(adapter.relative_to(folder.store))
    start = loss_after(part, 0)
    return Outcome(part.experiment, "done", step, "", loss, loss, start, None, name, losses_of(loss, 32), loss)


def main(arguments: Sequence[str]) -> None:
    work(AttemptFolder(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
