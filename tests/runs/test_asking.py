"""Asking something of a live run, of one that is not driven, and of one that does not answer."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import attempts, driven, lines, real_sweep, until
from gridsweep import errors
from gridsweep.errors import DeadlineError, LeaseError, SpecError
from gridsweep.records import requests
from gridsweep.records.lease import holder
from gridsweep.records.process import Process
from gridsweep.records.requests import Request
from gridsweep.runs import asking
from gridsweep.runs import run as runs
from gridsweep.runs.asking import ask, to_add
from gridsweep.runs.folder import RunFolder
from gridsweep.state.state import State
from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.sweep import Sweep
from gridsweep.testing.stand_in import STAND_IN


def wish(what: str, *ids: str, **rest: object) -> Request:
    return Request(what, datetime.now(UTC), ids, **rest)  # type: ignore[arg-type]  # by name, as a table has them


def read(folder: Path) -> State:
    return RunFolder(folder).read()


def at_work(folder: Path, step: int = 1) -> None:
    until(lambda: any(line.step >= step for attempt in attempts(folder) for line in lines(attempt)))


@pytest.fixture(params=[10_000.0, "auto"])
def speed(request: pytest.FixtureRequest) -> object:
    return request.param


def test_a_live_run_is_paused_stands_still_and_goes_on(tmp_path, monkeypatch, speed):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(2, steps=60, speed=speed), tmp_path)
    at_work(tmp_path)
    answer = ask(tmp_path, wish("pause"))
    assert answer.answer == "taken" and answer.driven and not answer.asked.refused
    until(lambda: not read(tmp_path).active)
    assert read(tmp_path).left == 2 and loop.is_alive()
    until(lambda: all(s.why.startswith("paused by") for s in read(tmp_path).standings.values()))
    until(lambda: read(tmp_path).anchors[-1].speed == 0)  # the end of work is told at the next look
    before = len(read(tmp_path).anchors), read(tmp_path).now
    threading.Event().wait(1.0)
    assert (len(read(tmp_path).anchors), read(tmp_path).now) == before  # the replayed time stands still
    assert ask(tmp_path, wish("pause")).answer == "taken"  # once more changes nothing
    assert ask(tmp_path, wish("resume")).answer == "taken"
    loop.join(60)
    assert loop.exitcode == errors.DONE and read(tmp_path).count("done") == 2
    assert requests.left(RunFolder(tmp_path).state) == []


def test_one_of_two_that_run_is_cancelled_and_its_checkpoint_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(2, devices=2), tmp_path)
    at_work(tmp_path, 2)
    ask(tmp_path, wish("cancel", "e01"))
    loop.join(60)
    ended = read(tmp_path).standings["e01"]
    assert loop.exitcode == errors.DONE and ended.status == "cancelled"
    assert ended.checkpoint is None or (RunFolder(tmp_path).store / ended.checkpoint.path).is_dir()
    report = runs.report(tmp_path)
    assert report.counts == {"done": 1, "cancelled": 1} and [row.what for row in report.requests] == ["cancel"]
    assert any("1 of 2 experiments were cancelled by a user" in note for note in report.notes)


def test_a_refused_request_says_why_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(1), tmp_path)
    at_work(tmp_path)
    with pytest.raises(SpecError, match="refused: the sweep has no experiment e77"):
        ask(tmp_path, wish("pause", "e77"))
    loop.join(60)
    assert loop.exitcode == errors.DONE and read(tmp_path).asks.taken.popitem()[1].refused


def test_files_of_strangers_are_refused_told_and_never_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(1), tmp_path)
    at_work(tmp_path)
    folder = requests.folder_of(RunFolder(tmp_path).state)
    folder.mkdir()
    (folder / "a.json").write_text("{")
    (folder / "b.json").symlink_to("/etc/passwd")
    (folder / "c.json").mkdir()
    os.mkfifo(folder / "d")
    loop.join(60)
    assert loop.exitcode == errors.DONE
    taken = read(tmp_path).asks.taken
    assert len(taken) == 4 and all(event.refused and event.what == "unknown" for event in taken.values())
    assert requests.left(RunFolder(tmp_path).state) == []


def test_a_request_to_what_nothing_drives_waits_for_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(2), tmp_path)
    at_work(tmp_path)
    asking.stop(tmp_path, STAND_IN)
    loop.join()
    answer = ask(tmp_path, wish("cancel", "e01"))
    assert (answer.answer, answer.driven, answer.asked) == ("waiting", False, None)
    assert read(tmp_path).standings["e01"].status == "waiting"  # only a run writes facts
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    assert runs.run(None, tmp_path, command=STAND_IN).exit_code == errors.DONE
    assert read(tmp_path).standings["e01"].status == "cancelled"


def test_what_the_next_run_would_refuse_is_refused_at_once(tmp_path):
    sweep = real_sweep(2)
    assert runs.run(sweep, tmp_path, command=STAND_IN).exit_code == errors.DONE
    with pytest.raises(SpecError, match=r"e01 has ended \(done\)"):
        ask(tmp_path, wish("cancel", "e01"))
    state = read(tmp_path)
    past = replace(point(sweep, 99), finish_by=state.submitted_at - timedelta(days=1))
    with pytest.raises(DeadlineError, match="which is past: the sweep's time is"):
        to_add(state, past)
    with pytest.raises(SpecError, match="there is nothing to pause"):
        ask(tmp_path, wish("pause"))
    assert requests.left(RunFolder(tmp_path).state) == []


def test_a_request_whose_taker_was_killed_before_it_removed_the_file_is_taken_once(tmp_path):
    sweep = real_sweep(2)
    id = requests.leave(_submitted(sweep, tmp_path), wish("cancel", "e01"))
    file = requests.folder_of(RunFolder(tmp_path).state) / f"{id}.json"
    text = file.read_bytes()
    assert runs.run(None, tmp_path, command=STAND_IN).exit_code == errors.DONE
    file.write_bytes(text)
    assert runs.run(None, tmp_path, command=STAND_IN).exit_code == errors.DONE
    assert not file.exists() and list(read(tmp_path).asks.taken) == [id]


def _submitted(sweep: Sweep, folder: Path) -> Path:
    """Submit a sweep and start nothing; return its state folder."""
    runs.run(sweep, folder, command=STAND_IN, stop="only submitted")
    return RunFolder(folder).state


def test_a_run_of_a_finished_sweep_takes_all_that_waits(tmp_path):
    sweep = real_sweep(1)
    assert runs.run(sweep, tmp_path, command=STAND_IN).exit_code == errors.DONE
    requests.leave(RunFolder(tmp_path).state, wish("cancel", "e00"))  # by an older gridsweep: `ask` refuses it at once
    ask(tmp_path, to_add(read(tmp_path), point(sweep, 2))[0])
    ask(tmp_path, wish("hold"))
    ask(tmp_path, wish("release"))
    done = runs.run(None, tmp_path, command=STAND_IN)
    assert done.exit_code == errors.DONE and done.report.counts == {"done": 2}
    first, *others = done.report.requests
    assert first.experiments == ("e00",) and "has ended (done)" in first.refused
    assert [row.what for row in others] == ["add", "hold", "release"]
    assert requests.left(RunFolder(tmp_path).state) == []


# Experiments and keys


def point(sweep: Sweep, r: int) -> Sweep:
    params = LoraParams(r, 1.0, 1e-3, 0.0)
    id = experiment_id(params, 42, sweep.model, sweep.dataset, sweep.recipe)
    return replace(sweep, experiments=(*sweep.experiments, replace(sweep.experiments[0], id=id, params=params)))


def test_experiments_are_added_to_a_finished_sweep_by_the_next_run(tmp_path):
    sweep = real_sweep(2)
    assert runs.run(sweep, tmp_path, command=STAND_IN).exit_code == errors.DONE
    wanted = point(point(sweep, 2), 3)
    request, notes = to_add(read(tmp_path), wanted)
    assert [e.params.r for e in request.added] == [2, 3] and notes == ()
    ask(tmp_path, request)
    done = runs.run(None, tmp_path, command=STAND_IN)
    assert done.exit_code == errors.DONE and done.report.counts == {"done": 4}
    assert to_add(read(tmp_path), wanted)[0].added == ()  # they are there
    assert runs.run(wanted, tmp_path, command=STAND_IN).exit_code == errors.DONE  # the longer spec fits
    assert runs.run(sweep, tmp_path, command=STAND_IN).exit_code == errors.DONE  # and so does the old one


def test_what_the_spec_leaves_out_stays_and_a_change_that_is_not_allowed_is_refused(tmp_path):
    sweep = real_sweep(3)
    _submitted(sweep, tmp_path)
    fewer = replace(sweep, experiments=sweep.experiments[:1])
    assert to_add(read(tmp_path), fewer)[1] == (
        "the spec lacks 2 experiments of the sweep: kept; `gridsweep cancel` ends one",
    )
    with pytest.raises(SpecError, match="total_steps"):
        to_add(read(tmp_path), replace(sweep, total_steps=9))


# Stopping


def test_stop_is_a_request_and_a_signal_where_none_is_answered(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    monkeypatch.setattr(asking, "ANSWER_PATIENCE", 0.5)
    loop = driven(real_sweep(2), tmp_path)
    at_work(tmp_path)
    os.kill(loop.pid, signal.SIGSTOP)  # neither answers nor ends before it goes on
    threading.Timer(1.5, os.kill, (loop.pid, signal.SIGCONT)).start()
    state = asking.stop(tmp_path, STAND_IN)
    loop.join()
    assert state.stopping.startswith("stopped by") and state.count("waiting") == 2
    assert requests.left(RunFolder(tmp_path).state) == []
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    assert runs.run(None, tmp_path, command=STAND_IN).exit_code == errors.DONE  # the old request means nothing now


def test_a_run_that_is_suspended_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    monkeypatch.setattr(asking, "ANSWER_PATIENCE", 0.3)
    monkeypatch.setattr(asking, "FROZEN_PATIENCE", 0.3)
    loop = driven(real_sweep(1), tmp_path)
    at_work(tmp_path)
    os.kill(loop.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LeaseError, match=f"is suspended.*`kill -CONT {loop.pid}` lets it"):
            asking.stop(tmp_path, STAND_IN)
    finally:
        os.kill(loop.pid, signal.SIGCONT)
    loop.join(60)
    assert loop.exitcode == errors.SIGNALLED  # the signal was kept for it


def test_a_run_elsewhere_is_asked_and_named_if_it_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e")
    monkeypatch.setattr(asking, "ANSWER_PATIENCE", 0.3)
    loop = driven(real_sweep(1), tmp_path)
    at_work(tmp_path)
    driver = holder(RunFolder(tmp_path).state)
    assert driver is not None
    elsewhere: Process = replace(driver, host="node7", boot="other")
    monkeypatch.setattr(asking, "holder", lambda state: elsewhere)
    os.kill(loop.pid, signal.SIGSTOP)
    with pytest.raises(LeaseError, match=r"node7.*has not answered"):
        asking.stop(tmp_path, STAND_IN)
    monkeypatch.undo()
    os.kill(loop.pid, signal.SIGCONT)
    loop.join(60)  # it takes the request as soon as it can
    assert loop.exitcode == errors.SIGNALLED and read(tmp_path).stopping.startswith("stopped by")
