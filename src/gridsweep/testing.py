"""Doubles that come with the package: a worker that trains nothing, fast, but keeps the whole protocol.

`python -m gridsweep.testing ATTEMPT_FOLDER` stands in for `python -m gridsweep.train ATTEMPT_FOLDER`. Its loss is a
function of seed, hyperparameters and step, carried from step to step in floating point, so that a step too many or
too few, or one from a wrong checkpoint, shows in the last digit. Two variables of the environment steer it:

    GRIDSWEEP_STEP_SECONDS   how long a step takes (0.01)
    GRIDSWEEP_MISBEHAVE      `WHAT:PREFIX,...`: experiments whose id starts with PREFIX go wrong: `nan`, `hang` (deaf to
                             SIGTERM too), `crash` (an error is reported), `vanish` (killed at its third step)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from gridsweep.attempt import AttemptFolder, EnergyLine, Outcome, Part, Progress, Result, now, verify

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


def work(folder: AttemptFolder) -> None:
    """Train one stint's only member, as the real worker would, but with arithmetic."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    folder.sign_in()
    assignment = folder.assignment()
    (part,) = assignment.members
    wrong = misbehaviour(part.experiment)
    if wrong == "crash":
        folder.finish(Result(now(), (), "the stand-in was told to crash"))
        raise SystemExit(1)
    step, loss = part.from_step, loss_after(part, 0)
    if part.checkpoint is not None:
        saved = folder.store / part.checkpoint.path
        if not verify(saved, part.checkpoint.digest):
            folder.finish(Result(now(), (), f"the checkpoint {saved} is not what was saved"))
            raise SystemExit(1)
        loss = float.fromhex((saved / "loss.txt").read_text())
    pace = float(os.environ.get("GRIDSWEEP_STEP_SECONDS", "0.01"))
    folder.append(Progress(now(), "training", step, {}))
    checkpoint = part.checkpoint
    while step < part.to_step:
        begun = now()
        time.sleep(pace)
        if wrong == "hang" and step >= 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        if wrong == "vanish" and step == part.from_step + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        step += 1
        loss = loss_after(part, step, loss)
        seconds = (now() - begun) / timedelta(seconds=1)
        folder.append(EnergyLine(begun, seconds, WATTS / 1000 * seconds / 3600, "modelled", step))
        folder.append(Progress(now(), "training", step, {part.experiment: loss}))
        if wrong == "nan" and step >= 3:
            why = f"the training loss is nan at step {step}"
            folder.finish(Result(now(), (Outcome(part.experiment, "failed", step, why),)))
            return
        if step % assignment.recipe.checkpoint_every == 0 or (asked and step < part.to_step):
            with folder.saving(part.experiment, step) as draft:
                (draft / "loss.txt").write_text(loss.hex())
            folder.forget_checkpoints()
            checkpoint = folder.checkpoint(part.experiment)
        if asked and step < part.to_step:
            paused = Outcome(part.experiment, "paused", step, checkpoint=checkpoint)
            folder.finish(Result(now(), (paused,)))
            return
    adapter = folder.path / "adapters" / part.experiment
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_config.json").write_text(f'{{"r": {part.params.r}}}\n')
    name = str(adapter.relative_to(folder.store))
    done = Outcome(part.experiment, "done", step, "", loss, loss, loss_after(part, 0), adapter=name)
    folder.finish(Result(now(), (done,), facts={"worker": "stand-in"}))


def main(arguments: Sequence[str]) -> None:
    work(AttemptFolder(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
