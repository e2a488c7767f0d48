"""How long the verbs take on a run of 5,000 experiments and 100,000 events: a folder is made, then each is timed.

    python benchmarks/size.py [--experiments 5000] [--events 100000] [--shape whole|rungs] [--folder FOLDER]

The folder is made through the real journal: a grid of experiments from a real spec, packs on eight devices, hourly
readings of the grid, pauses, lost attempts, progress with energy, losses per sample, and a last twenty experiments that
wait. `whole` trains every experiment to its end, one to a device; `rungs` trains packs of ten and stops most at three
rungs. Nothing is trained. With --folder, the folder is kept, and used again if it is there.

Each verb is a child of its own. A table shows wall time, CPU time and peak memory beside the goals; the exit code is 1
if a goal is missed. `first` is the time to the first line that a verb prints; the verb is then ended.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from gridsweep.api import load
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.state.events import (
    Decided,
    Ended,
    Event,
    Lost,
    Observed,
    Paused,
    Progressed,
    Ranked,
    Requested,
    Running,
    Segment,
    Stopping,
    Submitted,
)
from gridsweep.state.state import State
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Checkpoint, Member, Outcome, Stint
from gridsweep.sweep.sweep import Sweep

SPEC = """\
name: size
model: tiny-qwen2
dataset: {{id: stdlib, train_samples: 400, validation_samples: 64}}
recipe: {{steps: 320, batch_size: 4, accumulation: 2, max_length: 128, checkpoint_every: 10}}
space:
  r: [2, 4, 8, 16, 32]
  alpha: [8, 16, 32, 64, 128]
  lr: {rates}
  dropout: [0.0, 0.05, 0.1, 0.15, 0.2]
design: {{sample: {{n: {experiments}, seed: 1}}}}
carbon: {{provider: trace, file: solar-valley}}
clock: {{replay: {{from: "2024-03-01T00:00:00Z", speed: 100}}}}
tiers:
  - {{name: urgent, threshold: 225, max_delay: 96h}}
  - {{name: patient, threshold: p20, max_delay: 2000h}}
rules:
  - {{tier: urgent, when: {{r: 16}}}}
  - {{tier: patient}}
policy: {policy}
tick: 30m
devices: 8
estimates: {{duration: 90m, power_w: 425, loss_noise: 0.004}}
{shape}
"""
SHAPES = {"whole": ("none", 1), "rungs": ("default", 10)}
"""The rungs of a shape, and how many experiments are trained together."""
LEFT = 20
"""The experiments that still wait, so that `run` has something to do."""
SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Goal:
    """A verb and its goals: seconds (to the end, or to the first line), MiB of peak memory."""

    name: str
    arguments: tuple[str, ...]
    seconds: float | None = None
    mib: float | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    goal_s: float | None
    goal_mib: float | None
    kept: bool


def spec_of(experiments: int, shape: str) -> str:
    """Return a spec with a space of enough points."""
    rungs, pack = SHAPES[shape]
    rates = [float(f"{1e-5 * 1.03**n:.4g}") for n in range(-(-experiments // 125))]
    lines = f"rungs: {rungs}\npack: {pack}"
    return SPEC.format(experiments=experiments, rates=rates, policy="planned", shape=lines)


class Maker:
    """Makes the events of a run by a plain schedule: every device takes the next pack as soon as it is free."""

    def __init__(self, sweep: Sweep, progress: int):
        self.sweep, self.progress = sweep, progress
        assert sweep.replay is not None
        self.start = sweep.replay.start
        self.free = {device.name: self.start for device in sweep.devices}
        self.random = random.Random(7)
        self.hours = 0
        self.tries: dict[str, int] = {}
        rng = self.random
        self.quality = {e.id: 1.2 + 0.3 * rng.random() for e in sweep.experiments}
        self.hard = [0.3 * rng.random() for _ in range(SAMPLES)]

    def events(self) -> Iterator[Event]:
        """Yield the events in the order of the journal."""
        yield Submitted(self.start, self.sweep, timedelta(hours=20))
        alive = [e.id for e in self.sweep.experiments][:-LEFT]
        waits = [e.id for e in self.sweep.experiments][-LEFT:]
        yield from self.until(self.start)
        for id in alive:
            yield Decided(self.start, id, self.start + 90 * HOUR, "waits for a cleaner hour")
        begin = 0
        for n, stage in enumerate(self.sweep.stages):
            yield from self.stage(alive, begin, stage)
            if stage < self.sweep.total_steps and self.sweep.rungs is not None:
                at = max(self.free.values())
                order = sorted(alive, key=self.quality.__getitem__)
                keep = self.sweep.rungs.keep[n]
                gone = tuple(order[keep:])
                yield Ranked(at, stage, gone, f"stopped at step {stage}", tuple(order[:keep]), by="averaged")
                alive = order[:keep]
            begin = stage
        at = max(self.free.values())
        for id in waits:
            yield Decided(at, id, at + 9 * HOUR, "waits for a cleaner hour")
        yield Stopping(at, "stopped by gridsweep stop")

    def stage(self, alive: Sequence[str], begin: int, end: int) -> Iterator[Event]:
        pack = self.sweep.pack
        for n in range(0, len(alive), pack):
            members = alive[n : n + pack]
            device = min(self.free, key=lambda name: self.free[name])
            chance = self.random.random()
            middle = (begin + end) // 2
            if chance < 0.02 and middle > begin:
                yield from self.attempt(members, device, begin, end, middle, "paused" if chance < 0.01 else "lost")
                yield from self.attempt(members, device, middle, end, end, "ended")
            else:
                yield from self.attempt(members, device, begin, end, end, "ended")

    def attempt(self, members: Sequence[str], device: str, begin: int, to: int, last: int, how: str) -> Iterator[Event]:
        stint = Stint(tuple(Member(id, begin, to) for id in members))
        count = self.tries[stint.id] = self.tries.get(stint.id, 0) + 1
        name, at = f"{stint.id}/{count}", self.free[device]
        yield from self.until(at)
        yield Requested(at, name, stint, device, "the cleanest hours of the plan")
        lines = max(1, self.progress)
        took = self.sweep.span(len(members), begin, last) * self.random.uniform(0.9, 1.1)
        loaded = timedelta(minutes=2)
        yield Running(at + loaded, name)
        each, before = (took - loaded) / lines, at
        for n in range(1, lines + 1):
            now = at + loaded + n * each
            step = begin + (last - begin) * n // lines
            kwh = self.random.uniform(380, 430) / 1000 * ((now - before) / HOUR)
            losses = {id: round(self.quality[id] + 1 / (step + 1), 4) for id in members}
            energy = (Segment(before, now, kwh, "nvml counter", step),)
            yield Progressed(now, name, n, step, losses, energy, (200 * n, 120 * n))
            before = now
        ended = at + took
        saved = [Checkpoint(id, last, f"experiments/{id}/checkpoint-{last}", "0" * 64) for id in members]
        if how == "lost":
            yield Lost(ended, name, "killed by signal 9", tuple(saved))
        elif how == "paused":
            outs = [Outcome(s.experiment, "paused", last, checkpoint=s) for s in saved]
            yield Paused(ended, name, tuple(outs))
        else:
            yield Ended(ended, name, tuple(self.outcome(s) for s in saved), {"torch": "2.7.0"})
        self.free[device] = ended

    def outcome(self, saved: Checkpoint) -> Outcome:
        id = saved.experiment
        loss = self.quality[id] + 2 / (10 + saved.step)
        values = tuple(loss + hard + self.random.gauss(0, 0.02) for hard in self.hard)
        losses = Losses(values, tuple(20.0 + n % 9 for n in range(SAMPLES)))
        if saved.step < self.sweep.total_steps:
            return Outcome(id, "reached", saved.step, "", loss, None, 4.0, saved, losses=losses)
        folder = f"experiments/{id}/adapter"
        return Outcome(id, "done", saved.step, "", loss, losses.mean, 4.0, None, folder, losses)

    def until(self, moment: datetime) -> Iterator[Event]:
        """Yield the readings of the grid up to a moment, hour by hour; some hours are revised a day later."""
        title = Provenance("solar valley", "synthetic")
        while self.start + self.hours * HOUR <= moment:
            at = self.start + self.hours * HOUR
            yield Observed(at, at, HOUR, (round(self.level(self.hours), 1),), title)
            if self.hours % 50 == 49:
                then = self.hours - 24
                yield Observed(at, at - 24 * HOUR, HOUR, (round(self.level(then) + 3, 1),), title)
            self.hours += 1

    def level(self, hour: int) -> float:
        return 260 + 130 * math.cos((hour % 24 - 2) / 24 * 2 * math.pi) + 25 * math.sin(hour / 37)


def make(folder: Path, experiments: int, events: int, shape: str) -> int:
    """Make the run folder and the spec beside it; return the number of its events."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(spec_of(experiments, shape), encoding="utf-8")
    sweep = load(folder / "sweep.yaml")
    bare = sum(1 for _ in Maker(sweep, 0).events())  # with one line of progress for each attempt
    tries = sum(isinstance(event, Requested) for event in Maker(sweep, 0).events())
    progress = max(1, round((events - bare) / tries) + 1)
    made = list(Maker(sweep, progress).events())
    state = State()
    with lease(folder / "state") as epoch:
        journal = Journal(folder / "state" / "journal.db", epoch=epoch)
        try:
            for n in range(0, len(made), 1000):
                for event in made[n : n + 1000]:
                    state.apply(event)
                journal.extend(made[n : n + 1000])
        finally:
            journal.close()
    return len(made)


LAUNCHER = """
import json, os, sys, time
first, command = sys.argv[1] == "first", sys.argv[2:]
read, write = os.pipe()
begun = time.perf_counter()
child = os.fork()
if not child:
    for end in (1, 2):
        os.dup2(write if first else os.open(os.devnull, os.O_WRONLY), end)
    os.close(read)
    os.execv(command[0], command)
os.close(write)
if first:
    while (byte := os.read(read, 1)) and byte != b"\\n":
        pass
    wall = time.perf_counter() - begun
    os.kill(child, 9)
_, _, used = os.wait4(child, 0)
if not first:
    wall = time.perf_counter() - begun
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
"""A child begins as a copy of its parent, and its peak counts from there: so a small process starts it."""


def measured(goal: Goal, folder: Path) -> Measured:
    """Run a verb, to its end or to its first line, and measure it."""
    env = {**os.environ, "GRIDSWEEP_WORKER": "gridsweep.testing.stand_in", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-P", "-m", "gridsweep", *(part.format(folder=folder) for part in goal.arguments)]
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, "first" if goal.first else "end"]
    said = subprocess.run([*launch, *command], stdout=subprocess.PIPE, text=True, env=env, check=True).stdout
    wall, cpu, peak = json.loads(said)
    kept = (goal.seconds is None or wall <= goal.seconds) and (goal.mib is None or peak <= goal.mib)
    return Measured(goal.name, wall, cpu, peak, goal.seconds, goal.mib, kept)


GOALS = (
    Goal("status, without a snapshot", ("status", "{folder}")),
    Goal("status", ("status", "{folder}"), 0.5, 100),
    Goal("status --json", ("status", "{folder}", "--json")),
    Goal("report", ("report", "{folder}"), 20),
    Goal("check: first line", ("check", "{folder}/sweep.yaml"), 5, None, True),
    Goal("plan: first line", ("plan", "{folder}/sweep.yaml"), 5, None, True),
    Goal("run: first line", ("run", "{folder}"), 5, None, True),
)


def data_bytes(page: Path) -> int:
    """Return the bytes of an HTML page without the code of its scripts; their data counts."""
    text = page.read_text(encoding="utf-8")
    code = re.compile(r"(<script(?![^>]*application/json)[^>]*>).*?(</script>)", re.S)
    return len(code.sub(r"\1\2", text).encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experiments", type=int, default=5000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--shape", choices=SHAPES, default="whole")
    parser.add_argument("--folder", type=Path, help="where the folder is kept")
    parser.add_argument("--only", help="measure the verbs that begin so")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "size"
        if not (folder / "state" / "journal.db").exists():
            count = make(folder, chosen.experiments, chosen.events, chosen.shape)
            print(f"made {folder}: {chosen.experiments} experiments, {count} events", flush=True)
        return told(chosen, folder)


def told(chosen: argparse.Namespace, folder: Path) -> int:
    """Measure, print the table, and return the exit code."""
    for left in folder.glob("state/snapshot*"):
        left.unlink()
    found = []
    print(f"{'verb':<30}{'wall s':>9}{'CPU s':>9}{'MiB':>8}   goal")
    for goal in GOALS:
        if chosen.only and not goal.name.startswith(chosen.only):
            continue
        made = measured(goal, folder)
        found.append(made)
        wanted = [f"<= {goal.seconds:g} s"] if goal.seconds else []
        wanted += [f"<= {goal.mib:g} MiB"] if goal.mib else []
        missed = "" if made.kept else "  MISSED"
        print(
            f"{made.name:<30}{made.wall_s:>9.2f}{made.cpu_s:>9.2f}{made.peak_mib:>8.0f}   {', '.join(wanted)}{missed}",
            flush=True,
        )
    kept = all(made.kept for made in found)
    size = None
    if (page := folder / "state" / "report.html").exists():
        size = data_bytes(page)
        fits = size <= 1_200_000
        kept = kept and fits
        print(f"report.html without its scripts' code: {size / 1e6:.2f} MB   <= 1.2 MB{'' if fits else '  MISSED'}")
    if chosen.json:
        rows = [asdict(made) for made in found]
        chosen.json.write_text(json.dumps({"verbs": rows, "html_data_bytes": size}, indent=1) + "\n", encoding="utf-8")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
