"""Runs whose grid time follows the work: the same schedule however fast a worker is, whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from builders import RELAXED, START, URGENT, after, attempts, driven, grid, lines, losses, make_sweep, until
from gridsweep import errors
from gridsweep.accounting.ledger import ledger
from gridsweep.executors.border import read_lines
from gridsweep.executors.local import Local
from gridsweep.grid.registry import provider_for
from gridsweep.loop import drive
from gridsweep.policy.registry import policy_for
from gridsweep.records.attempts import EnergyLine
from gridsweep.records.journal import Journal
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.worlds import Following, Stopwatch
from gridsweep.schedule.timetable import timetable
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import ClockAnchored, Event, Lost, Progressed, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Recipe
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import RESTART, Member, Stint
from gridsweep.sweep.sweep import PolicyChoice, Replay, Sweep
from gridsweep.testing.stand_in import STAND_IN

AUTO = Replay(START, "auto")
PLAIN = make_sweep(5, tiers=(URGENT, RELAXED), devices=2, steps=8, replay=AUTO)
BUSY = replace(PLAIN, policy=PolicyChoice("immediate"))
PACKS = make_sweep(
    7, tiers=(URGENT, RELAXED), devices=2, steps=8, hours=2.0, pack=4, rungs=Rungs((0.25, 0.5), (4, 2)),
    policy=PolicyChoice("planned"), replay=AUTO,
)  # fmt: skip


def run(sweep: Sweep, folder: Path) -> State:
    assert runs.run(sweep, folder, command=STAND_IN).exit_code == errors.DONE
    return RunFolder(folder).read()


def schedule(state: State) -> list[tuple]:
    """Who ran when and where, exactly."""
    return [(a.id, a.device, a.requested_at, a.ended_at, a.end, a.why) for a in state.attempts.values()]


def events_of(folder: Path) -> list[Event]:
    journal = Journal(RunFolder(folder).journal)
    try:
        return journal.events()
    finally:
        journal.close()


# The same schedule, whatever is slow


@pytest.mark.parametrize("sweep", [PLAIN, PACKS], ids=["plain", "packs and rungs"])
def test_it_runs_as_simulated_and_as_if_no_worker_were_slow(tmp_path, monkeypatch, sweep):
    state = run(sweep, tmp_path / "plain")
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "slow:e00")
    slow = run(sweep, tmp_path / "slow")
    assert schedule(slow) == schedule(state) and losses(slow) == losses(state)
    ledgers = ledger(state), ledger(slow)
    assert ledgers[0].makespan == ledgers[1].makespan
    if sweep is PLAIN:  # which of a pack go on, only losses say
        policy = policy_for(sweep.policy)
        simulated = rehearse(sweep, START, provider_for(sweep.carbon), policy, Simulated(restart=RESTART))
        assert schedule(simulated) == schedule(state)


def test_steps_that_were_not_asked_for_take_no_grid_time(tmp_path, monkeypatch):
    """What such a worker saved is whole, so its work goes on from there; what it said is not believed."""
    wanted = losses(run(BUSY, tmp_path / "plain"))
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "long:e00")
    state = run(BUSY, tmp_path / "long")
    assert losses(state) == wanted
    lost = [attempt.reason for attempt in state.attempts.values() if attempt.end == "lost"]
    assert lost and all("progress.jsonl" in why and "the attempt makes " in why for why in lost)
    assert all(attempt.step <= 8 for attempt in state.attempts.values())


def test_energy_is_placed_by_step(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "slow:e00")
    state = run(BUSY, tmp_path)
    for folder in attempts(tmp_path):
        attempt = state.attempts["/".join(folder.path.parts[-2:])]
        drawn, _ = read_lines(EnergyLine, folder.path / "energy.jsonl", 0)
        assert sum(s.kwh for s in attempt.energy) == pytest.approx(sum(line.kwh for line in drawn), rel=1e-9)
        table = timetable(state, attempt)
        assert [s.step for s in attempt.energy] == [line.step for line in drawn] == list(range(1, 9))
        assert [s.start for s in attempt.energy] == [table.at(step) for step in range(8)]
        assert [s.end for s in attempt.energy] == [*(table.at(step) for step in range(1, 8)), attempt.ended_at]


def test_every_fact_is_known_at_the_sweeps_time_and_no_energy_lies_beyond_it(tmp_path):
    run(PACKS, tmp_path)
    now = START
    for event in events_of(tmp_path):
        now = event.at if isinstance(event, ClockAnchored) else now
        assert event.at <= now
        if isinstance(event, Progressed):
            assert all(segment.end <= now for segment in event.energy)


# What is killed, and what hangs


def test_a_killed_worker_costs_grid_time_and_energy(tmp_path, monkeypatch):
    sweep = make_sweep(1, steps=12, recipe=Recipe(steps=12, checkpoint_every=8), replay=AUTO)
    undisturbed = run(sweep, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.3")
    loop = driven(sweep, folder)
    until(lambda: any(line.step >= 3 for attempt in attempts(folder) for line in lines(attempt)))
    os.killpg(attempts(folder)[0].pid(), signal.SIGKILL)
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
    loop.join()
    state = RunFolder(folder).read()
    (lost, ended), whole = state.attempts.values(), undisturbed.attempts.values()
    assert (lost.end, ended.end) == ("lost", "ended") and losses(state) == losses(undisturbed)
    made = lost.step
    assert 3 <= made < 8
    assert lost.ended_at == ended.requested_at == timetable(state, lost).at(made)
    assert ended.ended_at - ended.requested_at == next(iter(whole)).ended_at - START
    assert ledger(state).makespan > ledger(undisturbed).makespan
    assert ledger(state).wasted.energy_kwh == pytest.approx(sum(s.kwh for s in lost.energy)) and lost.energy


def test_a_worker_that_hangs_is_lost_by_the_wall_clock(tmp_path, monkeypatch):
    """It stops the sweep's time, so that no time of the grid could tell."""
    monkeypatch.setattr(runs, "PATIENCE", timedelta(seconds=1.5))
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "hang:e00")
    begun = time.monotonic()
    done = runs.run(make_sweep(3, devices=2, replay=AUTO), tmp_path, command=STAND_IN)
    assert time.monotonic() - begun < 120
    assert (done.exit_code, done.report.counts) == (errors.SOME_FAILED, {"done": 2, "failed": 1})
    lost = [event for event in events_of(tmp_path) if isinstance(event, Lost)]
    assert all(event.why == "no progress for 0:00:01.500000" for event in lost)
    state = RunFolder(tmp_path).read()
    for attempt in state.attempts.values():
        if attempt.end == "lost":
            assert attempt.ended_at == timetable(state, attempt).at(attempt.step)


def test_a_stop_pauses_at_the_steps_made_and_the_next_run_goes_on_from_there(tmp_path, monkeypatch):
    wanted = losses(run(BUSY, tmp_path / "undisturbed"))
    folder = tmp_path / "stopped"
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.3")
    loop = driven(BUSY, folder)
    until(lambda: any(line.step >= 2 for attempt in attempts(folder) for line in lines(attempt)))
    os.kill(loop.pid, signal.SIGINT)
    loop.join()
    state = RunFolder(folder).read()
    assert loop.exitcode == errors.INTERRUPTED and not state.active
    for attempt in state.attempts.values():
        step = state.standings[attempt.stint.members[0].experiment].step
        assert attempt.end == "paused" and attempt.ended_at == timetable(state, attempt).at(step)
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
    stopped = [attempt.ended_at for attempt in state.attempts.values()]
    state = run(BUSY, folder)
    assert losses(state) == wanted
    again = [a.requested_at for a in state.attempts.values() if a.stint.members[0].from_step > 0]
    assert again and min(again) >= max(stopped)


def killed_again_and_again(sweep: Sweep, folder: Path, kills: int, seed: int) -> int:
    """Run, and kill the loop at a random moment, until it has ended; how often it was killed at work."""
    random_, killed = random.Random(seed), 0
    while killed < kills:
        loop = driven(sweep, folder)
        loop.join(0.05 + random_.random() * 0.3)
        if loop.exitcode is not None:
            assert loop.exitcode == 0
            break
        killed += 1
        loop.kill()
        loop.join()
    return killed


@pytest.mark.slow
def test_a_loop_killed_at_fifty_moments_starts_the_same_at_the_same_times(tmp_path, monkeypatch):
    sweep = replace(PACKS, recipe=Recipe(steps=40, checkpoint_every=10), total_steps=40)
    wanted = run(sweep, tmp_path / "undisturbed")
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.25")  # a stint outlives a few loops
    folder = tmp_path / "killed"
    assert killed_again_and_again(sweep, folder, 50, seed=1) == 50
    state = run(sweep, folder)
    assert schedule(state) == schedule(wanted) and losses(state) == losses(wanted)
    said = Counter((e.attempt, e.seq) for e in events_of(folder) if isinstance(e, Progressed))
    assert set(said.values()) == {1}


class Dying(list):
    """A journal whose loop dies after so many commits."""

    def __init__(self, events: Iterable[Event], commits: int):
        super().__init__(events)
        self.commits = commits

    def extend(self, events: Iterable[Event]) -> None:
        told = list(events)
        if told and self.commits == 0:
            raise KeyboardInterrupt
        super().extend(told)
        self.commits -= bool(told)


@pytest.mark.parametrize("commits", [2, 3])
def test_a_loop_that_dies_between_any_two_facts_starts_the_same(tmp_path, commits):
    """Killed after every commit but its first, which says that it resumed, and after every second one."""
    sweep, policy = PACKS, policy_for(PACKS.policy)
    provider = provider_for(sweep.carbon)
    wanted = schedule(run(sweep, tmp_path / "undisturbed"))
    journal: list[Event] = [Submitted(START, sweep, timedelta(minutes=10))]
    store, deaths, state = tmp_path / "store", 0, State(journal)
    while not state.finished:
        journal, state = Dying(journal, commits), State(journal)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Following, "look_every", 0.05)
            try:
                drive(state, journal, Following(AUTO, provider, Local(store, STAND_IN, [])), policy)
            except KeyboardInterrupt:
                deaths += 1
    assert deaths >= 50
    assert schedule(state) == wanted


# The clock


class Crew:
    """Workers by hand: nobody ends."""

    def changed(self, state: State) -> bool:
        return False


def test_time_begins_at_the_replays_start_and_resumes_where_it_stood():
    state = State([Submitted(START, PLAIN)])
    world = Following(AUTO, grid(1), Crew())
    (anchor,) = world.clock(state)
    assert (anchor.at, anchor.speed, anchor.why, world.now()) == (START, 0.0, "start", START)
    state.apply(anchor)
    state.apply(ClockAnchored(after(7), anchor.wall, 0.0, "jump"))
    world = Following(AUTO, grid(1), Crew())
    (anchor,) = world.clock(state)
    assert (anchor.at, anchor.why) == (after(7), "resume")
    assert world.clock(state) == ()


def test_while_nothing_runs_it_jumps_once_nothing_new_is_decided():
    state = State([Submitted(START, PLAIN)])
    world = Following(AUTO, grid(1), Crew(), threading.Event())
    world.clock(state)
    world.wait(after(5), state)
    assert world.clock(state) == ()  # the policy is asked once more
    world.wait(after(5), state)
    (anchor,) = world.clock(state)
    assert (anchor.at, anchor.why, world.now()) == (after(5), "jump", after(5))


def test_while_somebody_works_it_stands_until_steps_are_told():
    state = State([Submitted(START, PLAIN)])
    world = Following(AUTO, grid(1), Crew())
    world.clock(state)
    state.apply(Requested(START, "s/1", Stint((Member("e00", 0, 8),)), "d0", ""))
    world.wait(after(0.5), state)
    world.wait(after(0.5), state)
    assert world.clock(state) == () and world.now() == START
    state.apply(Progressed(START, "s/1", 1, 8, over_at=after(1)))
    world.wait(after(0.5), state)
    (anchor,) = world.clock(state)
    assert (anchor.at, anchor.why) == (after(0.5), "work")
    world.wait(after(1.5), state)
    assert world.clock(state)[0].at == after(1)


def test_the_stopwatch_begins_anew_with_every_sign_and_with_a_pause():
    moment = 0.0
    watch = Stopwatch(lambda: moment)
    state = State([Submitted(START, PLAIN, timedelta(minutes=10))])
    state.apply(Requested(START, "s/1", Stint((Member("e00", 0, 8),)), "d0", ""))
    assert watch.silences(state) == {"s/1": timedelta(0)}
    moment = 30.0
    assert watch.silences(state) == {"s/1": timedelta(seconds=30)}
    state.apply(Progressed(START, "s/1", 1, 1))
    assert watch.silences(state) == {"s/1": timedelta(0)}
    moment = 40.0
    state.attempts["s/1"].pausing_since = START
    assert watch.silences(state) == {"s/1": timedelta(0)}
    moment = 45.0
    state.apply(Progressed(START, "s/1", 2, 2))  # still saving
    assert watch.silences(state) == {"s/1": timedelta(seconds=5)}
    state.active.clear()
    assert watch.silences(state) == {}
