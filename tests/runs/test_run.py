import os
import signal
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from builders import RELAXED, START, URGENT, attempts, driven, lines, losses, make_sweep, real_sweep, until
from gridsweep import errors
from gridsweep.errors import DeadlineError, LeaseError, SpecError, TraceError
from gridsweep.records.journal import Journal
from gridsweep.records.lease import holder
from gridsweep.records.requests import name_of
from gridsweep.runs import asking
from gridsweep.runs import run as runs
from gridsweep.runs.amendments import amendments
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import exit_code
from gridsweep.state.events import ClockAnchored, Resumed, Stopping
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Recipe
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import CarbonSource, PolicyChoice
from gridsweep.testing.stand_in import STAND_IN

SLOW = "0.1"


def run(sweep, folder: Path, **options) -> runs.Run:
    return runs.run(sweep, folder, command=STAND_IN, **options)


def read(folder: Path) -> State:
    return RunFolder(folder).read()


def events_of(folder: Path):
    journal = Journal(RunFolder(folder).journal)
    try:
        return journal.events()
    finally:
        journal.close()


def at_work(folder: Path, step: int = 1) -> None:
    """Wait until a worker of the folder has come to a step."""
    until(lambda: any(line.step >= step for attempt in attempts(folder) for line in lines(attempt)))


# To the end


def test_a_sweep_runs_to_its_end(tmp_path):
    told = []
    done = run(real_sweep(3, devices=2), tmp_path, tell=lambda state, events: told.extend(events))
    assert (done.exit_code, done.folder, done.report.counts) == (errors.DONE, tmp_path, {"done": 3})
    assert told == events_of(tmp_path)
    assert runs.report(tmp_path) == done.report
    assert sorted(p.name for p in (tmp_path / "store/experiments").iterdir()) == ["e00", "e01", "e02"]
    assert [r.loss for r in done.report.rows] == sorted(r.loss for r in done.report.rows)
    assert done.report.energy_kwh > 0 and done.report.unknown_kwh == 0
    assert holder(tmp_path / "state") is None


def test_the_replayed_grid_passes_as_fast_as_it_is_told(tmp_path):
    begun = time.time()
    done = run(real_sweep(1, speed=36_000.0), tmp_path)
    anchors = [event for event in events_of(tmp_path) if isinstance(event, ClockAnchored)]
    assert done.report.submitted_at == anchors[0].at == START
    assert 0 < done.report.makespan_h <= (time.time() - begun) * 10


def test_an_end_is_an_end(tmp_path):
    first = run(real_sweep(2), tmp_path)
    again = run(real_sweep(2), tmp_path)
    assert replace(again.report) == first.report and len(attempts(tmp_path)) == 2
    assert [e.epoch for e in events_of(tmp_path) if isinstance(e, Resumed)] == [2]


def test_on_the_wall_clock_it_runs_just_the_same(tmp_path):
    sweep = make_sweep(1, tick=timedelta(seconds=1), policy=PolicyChoice("immediate"))
    assert run(sweep, tmp_path).exit_code == errors.DONE
    assert read(tmp_path).standings["e00"].status == "done"


def test_some_failures_are_exit_code_3(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:e01")
    done = run(real_sweep(3), tmp_path)
    assert (done.exit_code, done.report.counts) == (errors.SOME_FAILED, {"done": 2, "failed": 1})


def test_where_all_crash_alike_the_exit_code_is_5_and_the_next_run_may_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "crash:e")
    done = run(real_sweep(5, devices=3), tmp_path)
    assert done.exit_code == errors.EXECUTOR and done.report.state.startswith("halted: ")
    assert read(tmp_path).count("failed") == 0
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    done = run(None, tmp_path)
    assert (done.exit_code, done.report.counts) == (errors.DONE, {"done": 5})


# Stop and go on


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, errors.INTERRUPTED, "interrupted by Ctrl-C"),
        (signal.SIGTERM, errors.SIGNALLED, "stopped by SIGTERM"),
        (signal.SIGHUP, errors.SIGNALLED, "stopped by SIGHUP"),
    ],
)
def test_a_signal_stops_at_a_checkpoint_and_the_next_run_goes_on(tmp_path, monkeypatch, number, code, why):
    wanted = losses(run(real_sweep(2), tmp_path / "undisturbed") and read(tmp_path / "undisturbed"))
    folder = tmp_path / "stopped"
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    loop = driven(real_sweep(2), folder)
    at_work(folder, 2)
    os.kill(loop.pid, number)
    loop.join()
    state = read(folder)
    assert loop.exitcode == code and state.stopping == why and not state.active
    assert 2 <= state.standings["e00"].step < 8 and not any(a.alive() for a in attempts(folder))
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    assert run(None, folder).exit_code == errors.DONE
    assert losses(read(folder)) == wanted


def test_a_second_ctrl_c_leaves_at_once_and_the_worker_is_adopted(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "1.5")  # it takes so long to heed the first
    loop = driven(real_sweep(1, steps=2, speed=100.0), tmp_path)
    at_work(tmp_path, 0)
    os.kill(loop.pid, signal.SIGINT)
    until(lambda: any(isinstance(event, Stopping) for event in events_of(tmp_path)))
    os.kill(loop.pid, signal.SIGINT)
    loop.join(1.0)
    assert loop.exitcode == 1  # KeyboardInterrupt, which the command line turns into 130
    (worker,) = attempts(tmp_path)
    assert worker.alive()
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    assert run(None, tmp_path).exit_code == errors.DONE
    assert read(tmp_path).standings["e00"].status == "done"


def test_stop_ends_a_live_run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    loop = driven(real_sweep(2), tmp_path)
    at_work(tmp_path)
    state = asking.stop(tmp_path, STAND_IN)
    loop.join()
    assert state.stopping == f"stopped by {name_of(os.geteuid())}" and state.count("waiting") == 2
    assert loop.exitcode == errors.SIGNALLED == exit_code(state)


def test_stop_ends_workers_whose_run_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    loop = driven(real_sweep(2), tmp_path)
    at_work(tmp_path)
    loop.kill()
    loop.join()
    assert any(attempt.alive() for attempt in attempts(tmp_path))
    state = asking.stop(tmp_path, STAND_IN)
    assert not any(attempt.alive() for attempt in attempts(tmp_path))
    assert state.stopping == "stopped by gridsweep stop" and state.standings["e00"].step >= 1


def test_stop_of_what_has_ended_changes_nothing(tmp_path):
    run(real_sweep(1), tmp_path)
    before = events_of(tmp_path)
    assert asking.stop(tmp_path, STAND_IN).count("done") == 1
    assert events_of(tmp_path) == before


def test_a_run_in_a_thread_minds_no_signals(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run, args=(real_sweep(1), tmp_path))
    thread.start()
    thread.join()
    assert read(tmp_path).count("done") == 1 and signal.getsignal(signal.SIGINT) is before


# Refusals


def test_a_second_run_is_refused_while_the_first_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", SLOW)
    loop = driven(real_sweep(1), tmp_path)
    at_work(tmp_path, 0)
    with pytest.raises(LeaseError, match=f"process {loop.pid} is already running"):
        run(real_sweep(1), tmp_path)
    loop.join()
    assert loop.exitcode == errors.DONE


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    for action in (lambda: run(None, tmp_path), lambda: runs.report(tmp_path), lambda: asking.stop(tmp_path)):
        with pytest.raises(SpecError, match="holds no sweep; start one with `gridsweep run"):
            action()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=r"cannot write in .*file/state: Not a directory"):
        run(real_sweep(1), tmp_path / "file")


def test_a_replay_of_a_time_the_trace_does_not_cover_is_refused_and_nothing_is_journaled(tmp_path):
    trace = tmp_path / "grid.csv"
    trace.write_text("timestamp,carbon_intensity\n2020-01-01T00:00Z,100\n2020-01-01T01:00Z,200\n")
    with pytest.raises(TraceError, match="has no data at 2024-06-10 00:00 UTC"):
        run(real_sweep(1, carbon=CarbonSource("trace", "x", str(trace))), tmp_path)
    assert not RunFolder(tmp_path).journal.exists()


def test_a_deadline_that_cannot_be_met_is_refused(tmp_path):
    with pytest.raises(DeadlineError):
        run(real_sweep(3, finish_by=timedelta(hours=2)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_deadline_that_was_missed_is_exit_code_124(tmp_path):
    """Estimated at a minute, it takes most of an hour of the replayed clock."""
    sweep = real_sweep(1, hours=1 / 60, finish_by=timedelta(minutes=2))
    assert run(sweep, tmp_path).exit_code == errors.DEADLINE


# Amendments


SWEEP = make_sweep(4, tiers=(URGENT, RELAXED))
MOVED = tuple(replace(e, tier="relaxed", reason="moved") for e in SWEEP.experiments)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        (
            {"tiers": (replace(URGENT, threshold=99.0), RELAXED)},
            ["tiers[0].threshold: 250.0 before, 99.0 now"],
        ),
        ({"policy": PolicyChoice("immediate")}, ["policy.name: 'threshold' before, 'immediate' now"]),
        ({"devices": (Device("d0"), Device("d1"))}, ["devices: 1 before, 2 now"]),
        ({"devices": (Device("d0", speed=2.0),)}, ["devices[0].speed: 1.0 before, 2.0 now"]),
        ({"finish_by": timedelta(hours=9)}, ["finish_by: None before, 9 h now"]),
        ({"experiments": MOVED}, ["tiers of 4 experiments"]),
    ],
)
def test_what_may_change_on_the_way_is_told(changes, told):
    assert amendments(SWEEP, replace(SWEEP, **changes)) == told


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"recipe": Recipe(steps=7, checkpoint_every=2)}, r"recipe.steps: 6 before, 7 now"),
        ({"name": "other"}, r"name: 'test' before, 'other' now"),
        ({"experiments": SWEEP.experiments[:2]}, r"experiments: 4 before, 2 now, and they differ"),
        ({"tick": timedelta(hours=2)}, r"tick: 30 min before, 2 h now"),
        ({"total_steps": 7}, r"total_steps: 6 before, 7 now"),
        (
            {"model": replace(SWEEP.model, chat_template="{{ 'a template' }}" * 20)},
            r"model.chat_template: None before, .{40,50}\.\.\. \(sha256 [0-9a-f]{12}\) now",
        ),
        (
            {"experiments": tuple(replace(e, device="d0") for e in SWEEP.experiments)},
            r"experiments: 4 before, 4 now, and they differ",
        ),
    ],
)
def test_any_other_change_is_refused_with_the_difference(changes, refused):
    with pytest.raises(SpecError, match=refused):
        amendments(SWEEP, replace(SWEEP, policy=PolicyChoice("immediate"), **changes))


def test_amendments_are_journaled_and_take_effect(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    loop = driven(real_sweep(2), tmp_path)
    at_work(tmp_path)
    asking.stop(tmp_path, STAND_IN)
    loop.join()
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    changed = real_sweep(2, devices=(Device("other"),), policy=PolicyChoice("immediate"))
    assert run(changed, tmp_path).exit_code == errors.DONE
    state = read(tmp_path)
    assert [event.changes for event in state.amendments] == [
        ("devices[0].name: 'd0' before, 'other' now", "policy.name: 'threshold' before, 'immediate' now")
    ]
    assert [a.device for a in state.attempts.values()][-1] == "other"
    assert any("Changed on" in note for note in runs.report(tmp_path).notes)


def test_a_refused_change_leaves_the_journal_as_it_was(tmp_path):
    run(real_sweep(1), tmp_path)
    before = events_of(tmp_path)
    with pytest.raises(SpecError, match="the folder holds another sweep"):
        run(real_sweep(2), tmp_path)
    assert events_of(tmp_path) == before


def test_a_reference_to_a_variable_that_is_not_set_is_refused_before_the_submission(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    sweep = real_sweep(1, env=(("B", "env:NOT_THERE"),))
    with pytest.raises(SpecError, match=r"env\.B: refers to the variable NOT_THERE, which is not set"):
        run(sweep, tmp_path)
    assert not RunFolder(tmp_path).submitted() and not attempts(tmp_path)
