"""Makes the run folders of `tests/old_folders` and what is expected of them. It was run once, with gridsweep 0.1.0.

    git worktree add /tmp/gridsweep-0.1.0 COMMIT     the last one that has this file and is version 0.1.0
    cd /tmp && PYTHONPATH=/tmp/gridsweep-0.1.0/src python /tmp/gridsweep-0.1.0/tests/old_folders/make.py

The folders show that later versions read, report and resume what 0.1.0 wrote, so they are worth nothing when a later
version makes them; this program then refuses. It takes some minutes. Names of folders make only those. Nothing in a
folder names the machine: they are made below the temp folder, and the workers' host is taken out.

    finished   stand-in worker, threshold, two tiers, one at a time; ended, settled afterwards
    stopped    real worker, tiny-qwen2; one of two done, the other stopped at a checkpoint in mid-stint
    packed     real worker; a rung and packs of two; one pack is at the rung, the other stopped before it
    raced      stand-in worker; two rungs, packs, proposals and repeats; ended
    killed     stand-in worker; loop and worker killed in mid-stint
    troubled   stand-in worker; halted where all crashed alike, then resumed: one failed, one was lost thrice
    outage     virtual; a provider that falls silent, from `live` down to `none`; attempts held from outside
    elsewhere  virtual; Ray, a 4-bit base, pauses, a deadline that is an instant
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import UnreachableError
from gridsweep.executors.local import WORKER
from gridsweep.grid.archive import Archive
from gridsweep.grid.fallbacks import Resolver
from gridsweep.loop import Provider, drive
from gridsweep.policy.registry import policy_for
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.settling import settle
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Observations, Virtual
from gridsweep.state.events import Event, Held, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.clusters import ExecutorChoice, KubernetesCluster, RayCluster
from gridsweep.sweep.experiments import Dataset, Experiment, LoraParams, Model, Recipe
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import CarbonSource, Estimates, PolicyChoice, Replay, Sweep
from gridsweep.sweep.tiers import Percentile, Tier
from gridsweep.testing.stand_in import STAND_IN
from old_runs import EXPECTED, HERE, VERBS, bodies, encoding, explained, facts, resumed

START = datetime(2024, 6, 10, 16, tzinfo=UTC)
URGENT, PATIENT = Tier("urgent", 225.0, 6 * HOUR, 1), Tier("patient", 150.0, 24 * HOUR, 2)
MODEL, DATA = Model("tiny-qwen2"), Dataset("pairs.jsonl", train_samples=12, validation_samples=8)
FORK = multiprocessing.get_context("fork")


def sweep_of(name: str, points: Sequence[LoraParams], steps: int, **changes: Any) -> Sweep:
    """A sweep over points of tiers that take turns, on a replayed clock."""
    fields: dict[str, Any] = {
        "name": name,
        "model": MODEL,
        "dataset": DATA,
        "recipe": Recipe(
            steps=steps, batch_size=2, accumulation=2, max_length=64, checkpoint_every=4, target_modules=("q_proj",)
        ),
        "tiers": (URGENT, PATIENT),
        "estimates": Estimates(HOUR, 15.0, loss_noise=0.001),
        "devices": (Device("device0", power_w=15.0, idle_power_w=1.0),),
        "total_steps": steps,
        "policy": PolicyChoice("threshold"),
        "replay": Replay(START, 600.0),
    } | changes
    tiers, recipe = fields["tiers"], fields["recipe"]
    experiments = tuple(
        Experiment(experiment_id(p, 42, MODEL, DATA, recipe), p, 42, tiers[n % len(tiers)].name, "in turn")
        for n, p in enumerate(points)
    )
    return Sweep(experiments=experiments, **fields)


def points(*rates: float, rank: int = 2) -> list[LoraParams]:
    return [LoraParams(rank, 4.0, rate, 0.1) for rate in rates]


# Runs


def run(sweep: Sweep | None, folder: Path, command: Sequence[str] = STAND_IN) -> int:
    """Run a sweep in a process of its own; returns its exit code."""
    process = started(sweep, folder, command)
    process.join()
    return process.exitcode or 0


def started(sweep: Sweep | None, folder: Path, command: Sequence[str]) -> Any:
    process = FORK.Process(target=lambda: os._exit(runs.run(sweep, folder, command=command).exit_code))
    process.start()
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("it did not come true in five minutes")
        time.sleep(0.01)


def lines(folder: Path, experiment: str) -> list[dict[str, Any]]:
    """What the workers of an experiment said."""
    found = []
    for file in folder.glob("store/stints/*/*/progress.jsonl"):
        if experiment in (file.parent / "stint.json").read_text():
            found += [json.loads(line) for line in file.read_text().splitlines()]
    return found


def trained(folder: Path, experiment: str, step: int) -> bool:
    return any(line["phase"] == "training" and line["step"] >= step for line in lines(folder, experiment))


def finished(folder: Path) -> None:
    sweep = sweep_of("finished", points(1e-4, 2e-4, 5e-4, 1e-3), 12)
    sweep = replace(sweep, baseline=sweep.experiments[0].id)
    assert run(sweep, folder) == 0
    settle(folder, at=datetime(2024, 7, 1, tzinfo=UTC))


def stopped(folder: Path) -> None:
    device = Device("device0", memory_gb=8.0, power_w=15.0, power_limit_w=300.0)
    sweep = sweep_of("stopped", points(1e-3, 3e-3), 40, tiers=(URGENT,), devices=(device,))
    sweep = replace(sweep, policy=PolicyChoice("immediate"))
    process = started(sweep, folder, WORKER)
    wait_until(lambda: trained(folder, sweep.experiments[1].id, 6))
    subprocess.run([sys.executable, "-m", "gridsweep.cli", "stop", str(folder)], check=True)
    process.join()
    assert process.exitcode == 4, process.exitcode


def packed(folder: Path) -> None:
    sweep = sweep_of(
        "packed", points(1e-6, 1e-3, 3e-3, 1e-2), 40, tiers=(URGENT,), policy=PolicyChoice("planned"), pack=2,
        rungs=Rungs((0.5,), (2,)), replay=Replay(START, 300.0),
        estimates=Estimates(HOUR, 15.0, packed=((1, 1.0), (2, 0.8)), evaluation=0.05, measured="a test"),
    )  # fmt: skip
    sweep = replace(sweep, recipe=replace(sweep.recipe, warmup=0.0))
    sweep = replace(sweep, experiments=tuple(
        replace(e, id=experiment_id(e.params, 42, MODEL, DATA, sweep.recipe)) for e in sweep.experiments
    ))  # fmt: skip
    process = started(sweep, folder, WORKER)
    wait_until(lambda: all(trained(folder, e.id, 3) for e in sweep.experiments))
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 4, process.exitcode


def raced(folder: Path) -> None:
    grid = [LoraParams(r, 4.0, rate, 0.1) for r in (2, 4) for rate in (1e-4, 2e-4, 5e-4)]
    devices = (Device("device0", power_w=15.0, power_limit_w=300.0), Device("device1", speed=2.0, power_w=20.0))
    sweep = sweep_of(
        "raced", grid, 16, devices=devices, policy=PolicyChoice("planned", {"min_saving": 0.02, "pausing": 1.0}),
        pack=2, repeats=Repeats(2, 2), propose=Proposals("edge", 2), finish_by=timedelta(days=14),
    )  # fmt: skip
    first = sweep.experiments[0].id
    sweep = replace(sweep, baseline=first, rungs=Rungs((0.25, 0.5), (4, 3), (first,), together=False))
    assert run(sweep, folder) == 0


def killed(folder: Path) -> None:
    os.environ["GRIDSWEEP_STEP_SECONDS"] = "0.05"
    sweep = sweep_of("killed", points(1e-4, 2e-4), 30, replay=Replay(START, 300.0))
    process = started(replace(sweep, policy=PolicyChoice("immediate")), folder, STAND_IN)
    wait_until(lambda: trained(folder, sweep.experiments[0].id, 11))
    time.sleep(1.2)  # the loop looks once a second: it is to have heard of something, and not of everything
    process.kill()
    process.join()
    (worker,) = folder.glob("store/stints/*/*/worker.json")
    os.kill(json.loads(worker.read_text())["pid"], 9)
    os.environ["GRIDSWEEP_STEP_SECONDS"] = "0.005"


def troubled(folder: Path) -> None:
    sweep = sweep_of("troubled", points(1e-4, 2e-4, 5e-4, 1e-3), 12, devices=(Device("device0"), Device("device1")))
    os.environ["GRIDSWEEP_MISBEHAVE"] = "crash:r"
    assert run(sweep, folder) == 5
    bad, worse = (e.id for e in sweep.experiments[1:3])
    os.environ["GRIDSWEEP_MISBEHAVE"] = f"nan:{bad},vanish:{worse}"
    amended = replace(sweep, tiers=(replace(URGENT, max_delay=8 * HOUR), PATIENT))
    assert run(amended, folder) == 3
    del os.environ["GRIDSWEEP_MISBEHAVE"]


# Journals of virtual worlds

LEVELS = [300.0, 280, 260, 220, 140, 90, 80, 90, 140, 230, 310, 315]
TRUTH = Trace(START - timedelta(days=40), 2 * HOUR, LEVELS * 80)
TOLD = Provenance("a service", provider="test", zone="X", kind="average", basis="direct")


class Service:
    """A live source over a known truth, which falls silent."""

    keys = frozenset[str]()
    live = True

    def __init__(self, shows: timedelta, silent: list[tuple[datetime, datetime]]):
        self.shows, self.silent = shows, silent

    def read(self, now: datetime) -> Reading:
        if any(start <= now < end for start, end in self.silent):
            raise UnreachableError("the service is down")
        past = TRUTH.between(now - self.shows, now + timedelta(microseconds=1))
        slot = TRUTH.start + TRUTH.index(now) * TRUTH.step
        ahead = TRUTH.between(slot, slot + timedelta(days=1))
        told = Forecast(now, slot, TRUTH.step, ahead.values[None, :], source="the service's forecast")
        return Reading(past, told, replace(TOLD, fetched_at=now))

    def past(self, start: datetime, end: datetime) -> Reading:
        return Reading(TRUTH.between(start, end), None, TOLD)

    def zones(self) -> Sequence[Any]:
        return []


class Gated(Simulated):
    """A quota holds every second attempt back for a moment."""

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        found: list[Event] = []
        for event in super().observe(state, now):
            if isinstance(event, Running) and len(state.attempts) % 2 == 0:
                found += [Held(event.at, event.attempt, "kueue", "quota"), Held(event.at, event.attempt, "kueue", "")]
            found.append(event)
        return found


def journaled(sweep: Sweep, folder: Path, provider: Provider, executor: Simulated) -> None:
    """Drive a sweep in a virtual world and journal it."""
    place = RunFolder(folder)
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        submitted = Submitted(START, sweep, timedelta(minutes=10))
        journal.extend([submitted])
        runs.keep_spec(place, sweep)
        drive(State([submitted]), journal, Virtual(START, provider, executor), policy_for(sweep.policy))
        journal.close()


def outage(folder: Path) -> None:
    cluster = KubernetesCluster(gate="kueue", queue="green", context="lab", volume_size="20Gi", storage_class="fast",
                                hugging_face_secret="hub")  # fmt: skip
    carbon = CarbonSource("test", "X", None, "env:TOKEN", "env:USER", "env:PASSWORD", "https://grid.example", "direct",
                          on_signal_loss="wait")  # fmt: skip
    tiers = (Tier("urgent", 150.0, 24 * HOUR, 1), Tier("patient", Percentile(25.0), 96 * HOUR, 2))
    sweep = sweep_of(
        "outage", points(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2), 12, tiers=tiers, carbon=carbon,
        executor=ExecutorChoice("kubernetes", kubernetes=cluster), replay=None, estimates=Estimates(9 * HOUR, 300.0),
    )  # fmt: skip
    # Too little is known after the second silence for a forecast of our own: the yearly average answers.
    silent = [(START + 3 * HOUR, START + 33 * HOUR), (START + 38 * HOUR, START + 39 * HOUR)]
    resolver = Resolver(Service(timedelta(days=28), silent), Archive(carbon, None))
    journaled(sweep, folder, Shortened(resolver), Gated())


class Shortened:
    """Another resolver takes over on the way: one that has no history, then with an average, then without one."""

    def __init__(self, first: Resolver):
        silent = [(START, START + timedelta(days=60))]
        average = Provenance("the yearly average of X", "static", provider="static", zone="X")
        carbon = CarbonSource("test", "X", None)
        self.parts = [
            (START + 48 * HOUR, first),
            (START + 60 * HOUR, Resolver(Service(timedelta(hours=6), silent), Archive(carbon, None), average, 222.0)),
            (START + 70 * HOUR, Resolver(Service(timedelta(hours=6), silent), Archive(carbon, None))),
        ]
        self.last = first

    def read(self, now: datetime) -> Reading:
        return next((part for end, part in self.parts if now < end), self.last).read(now)


def elsewhere(folder: Path) -> None:
    ray = RayCluster("http://ray.example:8265", "/mnt/shared", "TPU", "env:RAY_TOKEN")
    sweep = sweep_of(
        "elsewhere", points(1e-4, 2e-4, 5e-4), 40, executor=ExecutorChoice("ray", ray=ray), replay=None,
        policy=PolicyChoice("on_off", {"pause_above": 240.0, "resume_below": 200.0}),
        finish_by=START + timedelta(days=20), estimates=Estimates(10 * HOUR, 300.0),
    )  # fmt: skip
    sweep = replace(sweep, experiments=tuple(
        replace(e, base="4-bit", device="device0", id=experiment_id(e.params, 42, MODEL, DATA, sweep.recipe, "4-bit"))
        for e in sweep.experiments
    ))  # fmt: skip
    journaled(sweep, folder, Observations(TRUTH, TOLD), Simulated(scored=scored))


def scored(experiment: Experiment, step: int) -> Losses:
    values = tuple(2.0 - 100 * experiment.params.lr + 0.01 * n - 0.001 * step for n in range(6))
    return Losses(values, (7.0,) * 6)


# What is kept

MADE = (finished, stopped, packed, raced, killed, troubled, outage, elsewhere)
RESUMED = {"stopped": WORKER, "packed": WORKER, "killed": STAND_IN}


def said(folder: Path, ids: list[str]) -> dict[str, str]:
    """What the command line says of a folder, run beside it."""
    texts = {}
    for file, verb in (VERBS | explained(ids)).items():
        command = [sys.executable, "-m", "gridsweep.cli", *(part.format(folder=folder.name) for part in verb)]
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=True)
        texts[file] = done.stdout
    return texts


def keep(folder: Path) -> None:
    """Pack a folder and write down what is expected of it. It is looked at, and resumed, as copies."""
    name = folder.name
    for file in folder.glob("store/stints/*/*/worker.json"):
        signed = json.loads(file.read_text()) | {"host": "somewhere"}
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        file.write_text(json.dumps(signed))
        os.utime(file, ns=times)
    with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(folder, name, filter=nobodys)
    found = facts(folder)
    home = EXPECTED / name
    home.mkdir(parents=True, exist_ok=True)
    copy = folder.parent / "copy" / name
    shutil.copytree(folder, copy)
    for file, text in said(copy, list(found["experiments"])).items():
        (home / file).write_text(text, encoding="utf-8")
    write(home / "facts.json", found)
    if name in RESUMED:
        copy = folder.parent / "resumed" / name
        shutil.copytree(folder, copy)
        assert run(None, copy, RESUMED[name]) == 0
        write(home / "resumed.json", resumed(copy))


def nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose it was."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def example_ids() -> dict[str, list[str]]:
    root = HERE.parents[1] / "examples"
    return {
        str(path.relative_to(root)): [e.id for e in Sweep.load(path).experiments]
        for path in sorted(root.rglob("*.yaml"))
    }


def machine() -> dict[str, str]:
    """What the last bits of a loss may depend on."""
    import torch

    from gridsweep.train.device import device_name

    return {"torch": torch.__version__, "cpu": device_name(torch.device("cpu"))}


def main() -> None:
    if version("gridsweep") != "0.1.0":
        raise SystemExit(f"these folders are to be made by gridsweep 0.1.0, and this is {version('gridsweep')}")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
                   "GRIDSWEEP_STEP_SECONDS": "0.005"}  # fmt: skip
    wanted = sys.argv[1:]
    EXPECTED.mkdir(exist_ok=True)
    (EXPECTED / "encoding.txt").write_text("\n".join(encoding()) + "\n", encoding="utf-8")
    write(EXPECTED / "example_ids.json", example_ids())
    write(EXPECTED / "machine.json", machine())
    with tempfile.TemporaryDirectory(prefix="gridsweep-") as temp:
        place = Path(temp)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        shutil.copy(HERE / "pairs.jsonl", place)
        os.chdir(place)
        for make in MADE:
            if wanted and make.__name__ not in wanted:
                continue
            begun = time.monotonic()
            make(Path(make.__name__))
            keep(place / make.__name__)
            kinds = {body["kind"] for body in bodies(place / make.__name__)}
            print(f"{make.__name__}: {time.monotonic() - begun:.0f} s, {', '.join(sorted(kinds))}")


if __name__ == "__main__":
    main()
