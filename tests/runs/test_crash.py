"""Whatever is killed, and when: the sweep goes on to the same end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from builders import PATIENT, START, attempts, driven, lines, losses, real_sweep, until
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import make_report
from gridsweep.records.journal import Journal
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.promises import promise
from gridsweep.state.events import ClockAnchored, Event, Progressed, Requested, Running
from gridsweep.state.state import State
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs
from gridsweep.testing.stand_in import STAND_IN

SWEEP = real_sweep(8, steps=24, devices=2, tiers=PATIENT)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict:
    """What an undisturbed sweep finds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
        assert runs.run(SWEEP, folder, command=STAND_IN).exit_code == 0
    assert [len(s.attempts) for s in RunFolder(folder).read().standings.values()] == [1] * 8
    return losses(RunFolder(folder).read())


def events_of(folder: Path) -> list[Event]:
    journal = Journal(RunFolder(folder).journal)
    try:
        return journal.events()
    finally:
        journal.close()


def finished(folder: Path) -> bool:
    place = RunFolder(folder)
    return place.journal.exists() and bool(events_of(folder)) and place.read().finished


def check(folder: Path, wanted: dict) -> State:
    """The end is the undisturbed one, nothing was done twice, and every gram is in the journal."""
    state = RunFolder(folder).read()
    assert losses(state) == wanted
    assert len(list(folder.glob("store/experiments/*/adapter/adapter_config.json"))) == len(wanted)
    assert {f"{a.path.parent.name}/{a.path.name}" for a in attempts(folder)} == set(state.attempts)
    trained_once_past_checkpoints(folder, state)
    told_once(folder, state)
    on_one_clock(folder, state)
    report = runs.report(folder)
    again = State(events_of(folder))
    book, other = ledger(again), baseline(again)
    assert report == make_report(again, book, other, promise(again, book, other))
    assert report.emissions_g == sum(a.emissions_g for a in book.experiments.values()) + book.idle.emissions_g
    return state


def trained_once_past_checkpoints(folder: Path, state: State) -> None:
    """Each attempt at an experiment went on exactly from what was kept of those before it."""
    for standing in state.standings.values():
        kept = 0
        for attempt in (state.attempts[name] for name in standing.attempts):
            (member,) = attempt.stint.members
            assert member.from_step == kept
            trained = [line.step for line in lines(folder_of(folder, attempt.id))]
            assert trained == list(range(kept, kept + len(trained)))
            kept = max(kept, attempt.kept_step)
        assert kept == 24


def folder_of(folder: Path, attempt: str):
    return next(a for a in attempts(folder) if str(a.path).endswith(attempt))


def told_once(folder: Path, state: State) -> None:
    """No line was journaled twice or left out: sequence numbers, energy and steps add up."""
    said = Counter((e.attempt, e.seq) for e in events_of(folder) if isinstance(e, Progressed))
    assert set(said.values()) <= {1}
    requested = Counter(e.attempt for e in events_of(folder) if isinstance(e, Requested | Running))
    assert max(requested.values()) <= 2
    for name, attempt in state.attempts.items():
        path = folder_of(folder, name).path / "energy.jsonl"
        text = path.read_text() if path.exists() else ""
        kwh = sum(float(line.partition('"kwh":')[2].partition(",")[0]) for line in text.splitlines())
        assert sum(segment.kwh for segment in attempt.energy) == pytest.approx(kwh, rel=1e-9)


def on_one_clock(folder: Path, state: State) -> None:
    """Grid time never goes back, devices are never shared, and no interval is negative."""
    anchors = [event for event in events_of(folder) if isinstance(event, ClockAnchored)]
    for earlier, later in pairwise(anchors):
        assert later.at >= earlier.at and later.wall >= earlier.wall
        reached = earlier.at + (later.wall - earlier.wall) * earlier.speed
        assert later.at <= reached or later.why == "jump"
    for device in state.sweep.devices:
        held = [a for a in state.attempts.values() if a.device == device.name]
        held.sort(key=lambda a: a.requested_at)
        for one, next_one in pairwise(held):
            assert one.ended_at <= next_one.requested_at
    for attempt in state.attempts.values():
        assert START <= attempt.requested_at <= attempt.ended_at
        assert all(s.start <= s.end and s.kwh >= 0 for s in attempt.energy)


def crash(folder: Path, kills: int, seed: int) -> int:
    """Run, and kill the loop at a random moment, again and again; how often it was killed at work."""
    random_ = random.Random(seed)
    done = 0
    while done < kills and not finished(folder):
        loop = driven(SWEEP, folder)
        time.sleep(random_.choice([0.01, 0.05, 0.2]) + random_.random() * 0.15)
        assert loop.exitcode in (None, 0)
        done += loop.exitcode is None
        loop.kill()
        loop.join()
    return done


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_whose_loop_is_killed_again_and_again_ends_the_same(tmp_path, monkeypatch, wanted, seed):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.03")
    assert crash(tmp_path, 18, seed) >= 17
    assert runs.run(SWEEP, tmp_path, command=STAND_IN).exit_code == 0
    state = check(tmp_path, wanted)
    assert all(len(s.attempts) == 1 for s in state.standings.values())  # the workers outlived every crash


def living(folder: Path) -> list[int]:
    return [a.pid() for a in attempts(folder) if a.alive() and a.pid()]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_sweep_whose_workers_are_killed_too_ends_the_same(tmp_path, monkeypatch, wanted, seed):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.03")  # slow enough to be there to be shot
    random_ = random.Random(100 + seed)
    shot: Counter[str] = Counter()
    for count in range(30):
        if count >= 9 and sum(shot.values()) > 5:
            break  # on a busy machine workers take longer to be there to be shot
        loop = driven(SWEEP, tmp_path)
        time.sleep(0.15 + random_.random() * 0.4)
        if random_.random() < 0.5:
            loop.kill()
            loop.join()
        for folder in attempts(tmp_path):
            id = folder.assignment().members[0].experiment
            pid = folder.pid()
            if pid and folder.alive() and shot[id] < 2 and random_.random() < 0.7:
                os.killpg(pid, signal.SIGKILL)
                shot[id] += 1
        time.sleep(0.05)
        loop.kill()
        loop.join()
    until(lambda: runs.run(SWEEP, tmp_path, command=STAND_IN).exit_code == 0)
    state = check(tmp_path, wanted)
    ends = Counter(attempt.end for attempt in state.attempts.values())
    assert 3 < ends["lost"] <= sum(shot.values()) and ends["ended"] == 8  # some had just written their result


RUNGS = replace(
    SWEEP, pack=3, rungs=Rungs((0.25, 0.5), (4, 2)), repeats=Repeats(seeds=2, finalists=2), propose=Proposals("edge", 1)
)


def found(folder: Path) -> dict:
    """What became of each, with the losses at every rung."""
    standings = RunFolder(folder).read().standings
    rungs = {id: {step: o.losses for step, o in s.scores.items()} for id, s in standings.items()}
    return {id: (*end, rungs[id]) for id, end in losses(RunFolder(folder).read()).items()}


@pytest.mark.parametrize("seed", range(2))
def test_with_rungs_and_packs_the_same_experiments_go_on_whatever_is_killed(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    assert runs.run(RUNGS, tmp_path / "undisturbed", command=STAND_IN).exit_code == 0
    wanted = found(tmp_path / "undisturbed")
    assert Counter(status for status, *_ in wanted.values()) == {"stopped": 7, "done": 4}  # a newcomer, two repeats
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.03")
    random_, folder = random.Random(200 + seed), tmp_path / "disturbed"
    shot: Counter[str] = Counter()
    for _ in range(8):
        loop = driven(RUNGS, folder)
        time.sleep(0.2 + random_.random() * 0.3)
        for attempt in attempts(folder):
            members = [part.experiment for part in attempt.assignment().members]
            pid = attempt.pid()
            if pid and attempt.alive() and max(shot[id] for id in members) < 2 and random_.random() < 0.5:
                os.killpg(pid, signal.SIGKILL)
                shot.update(members)
        loop.kill()
        loop.join()
    until(lambda: runs.run(RUNGS, folder, command=STAND_IN).exit_code == 0)
    assert found(folder) == wanted
    state = RunFolder(folder).read()
    told_once(folder, state)
    kept = {path.name for path in folder.glob("store/stints/*/*/checkpoints/*/*")}
    assert kept == {id for id, (status, *_) in wanted.items() if status == "stopped"}
    assert len(list(folder.glob("store/stints/*/*/checkpoints/*/*"))) == 7  # one each


# A folder that is moved under a run


def test_a_folder_that_is_moved_under_a_run_ends_it_and_goes_on_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.05")
    sweep, folder, other = real_sweep(1, steps=60), tmp_path / "run", tmp_path / "elsewhere"
    process = driven(sweep, folder)
    until(lambda: any(line.step >= 4 for a in attempts(folder) for line in lines(a)))
    (worker,) = attempts(folder)
    pid = worker.pid()
    folder.rename(other)
    process.join(20)
    assert process.exitcode == 7
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())
    assert not list(folder.glob("store/stints/*/*/result.json"))  # nobody works on where the folder was
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    assert runs.run(None, other, command=STAND_IN).exit_code == 0
    assert [a.parent.parent.name for a in (one.path for one in attempts(other))] == ["stints", "stints"]


def test_a_damaged_checkpoint_costs_steps_and_not_the_experiment(tmp_path, monkeypatch):
    sweep, folder = real_sweep(1, steps=24), tmp_path / "run"
    assert runs.run(sweep, tmp_path / "undisturbed", command=STAND_IN).exit_code == 0
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    process = driven(sweep, folder)
    until(lambda: any(line.step >= 5 for a in attempts(folder) for line in lines(a)))
    process.terminate()
    process.join(20)
    steps = {int(path.parent.parent.name): path for path in folder.glob("store/stints/*/*/checkpoints/*/e00/loss.txt")}
    steps[max(steps)].write_text("0x0p+0")  # the disk has lost what was saved last
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    assert runs.run(None, folder, command=STAND_IN).exit_code == 0
    assert losses(RunFolder(folder).read()) == losses(RunFolder(tmp_path / "undisturbed").read())
    (reverted,) = [event for event in events_of(folder) if event.kind == "Reverted"]
    assert reverted.checkpoint.step == sorted(steps)[-2]
