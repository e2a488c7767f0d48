import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from builders import FORK, START, URGENT, attempts, grid, lines, make_sweep, until
from gridsweep.energy.nvml import visible_gpus
from gridsweep.errors import ExecutorError
from gridsweep.executors.assigning import assignment
from gridsweep.executors.local import Local
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate
from gridsweep.records.process import _start
from gridsweep.runs.worlds import Live
from gridsweep.state.events import Ended, Lost, Paused, Pausing, Progressed, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.clusters import ExecutorChoice, Limits
from gridsweep.sweep.experiments import Experiment, LoraParams, Recipe
from gridsweep.sweep.stints import Device, Member, Stint
from gridsweep.testing.stand_in import STAND_IN

SLOW = "0.05"


@pytest.fixture
def local(tmp_path) -> Local:
    return Local(tmp_path / "store", STAND_IN, gpus=[])


def submitted(steps: int = 6, **changes) -> State:
    now = Live(grid(), None).now()  # type: ignore[arg-type]
    return State([Submitted(now, make_sweep(2, steps=steps, **changes))])


def request(state: State, id: str = "e00", device: str = "d0") -> str:
    """Journal the next attempt at what remains of an experiment; its name."""
    stint = Stint((Member(id, state.standings[id].step, state.sweep.total_steps),))
    name = f"{stint.id}/{state.tries.get(stint.id, 0) + 1}"
    state.apply(Requested(state.now, name, stint, device, "a test"))
    return name


def look(state: State, local: Local) -> list:
    events = list(local.observe(state, Live(grid(), None).now()))  # type: ignore[arg-type]
    for event in events:
        state.apply(event)
    return events


def finish(state: State, local: Local) -> list:
    """Act and observe until nothing runs; all that was observed."""
    heard = []

    def over() -> bool:
        local.act(state)
        heard.extend(look(state, local))
        return not state.active

    until(over)
    local.act(state)
    return heard


def working(local: Local, name: str, step: int) -> None:
    """Wait until a worker has come to a step."""
    until(lambda: any(line.step >= step for line in lines(local.folder(name))))


def kill(local: Local, name: str) -> None:
    os.kill(local.folder(name).pid(), signal.SIGKILL)
    until(lambda: not local.folder(name).alive())


def undisturbed(tmp_path: Path, steps: int) -> float:
    """The loss of e00 when nothing happens."""
    state = submitted(steps)
    request(state)
    finish(state, Local(tmp_path / "undisturbed", STAND_IN, gpus=[]))
    return state.standings["e00"].outcome.validation_loss


# Start to end


def test_an_attempt_runs_is_told_of_and_is_published(local):
    state = submitted()
    name = request(state)
    heard = finish(state, local)
    assert [type(e) for e in heard if not isinstance(e, Progressed)] == [Running, Ended]
    standing, attempt = state.standings["e00"], state.attempts[name]
    assert (standing.status, standing.step, attempt.step) == ("done", 6, 6)
    assert standing.loss == standing.outcome.validation_loss
    assert state.facts == {"worker": "stand-in"}
    assert (local.store / "experiments" / "e00" / "adapter" / "adapter_config.json").read_text() == '{"r": 8}\n'
    assert not (local.folder(name).path / "checkpoints").exists()
    assert attempt.requested_at <= attempt.running_at <= attempt.ended_at


def test_its_energy_is_that_of_its_lines(local):
    state = submitted()
    name = request(state)
    finish(state, local)
    written = (local.folder(name).path / "energy.jsonl").read_text().splitlines()
    kwh = sum(json.loads(line)["kwh"] for line in written)
    segments = state.attempts[name].energy
    assert len(written) == 6 and sum(s.kwh for s in segments) == pytest.approx(kwh)
    assert all(a.end <= b.start for a, b in pairwise(segments))


def test_acting_again_starts_nothing_twice(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", SLOW)
    state = submitted()
    name = request(state)
    other = Local(local.store, STAND_IN, gpus=[])
    for executor in (local, local, other, other):
        executor.act(state)
    finish(state, other)
    assert [line.step for line in lines(local.folder(name))] == [0, 1, 2, 3, 4, 5, 6]
    assert len(attempts(local.store.parent)) == 1


def test_observing_twice_tells_the_same_and_folding_it_again_changes_nothing(local):
    state = submitted()
    request(state)
    local.act(state)
    until(lambda: local.changed(state))
    now = Live(grid(), None).now()  # type: ignore[arg-type]
    once, twice = local.observe(state, now), local.observe(state, now)
    assert once == twice and [type(e) for e in once] == [Running, Progressed, Ended]


# Outliving and adoption


def start_and_die(store: Path, state: State) -> None:
    Local(store, STAND_IN, gpus=[]).act(state)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_outlives_its_parent_and_is_adopted(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", SLOW)
    state = submitted(steps=12)
    name = request(state)
    parent = FORK.Process(target=start_and_die, args=(local.store, state))
    parent.start()
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    assert local.folder(name).alive() and local.alive(state)
    finish(state, local)
    assert [line.step for line in lines(local.folder(name))] == list(range(13))
    assert state.standings["e00"].status == "done" and len(attempts(local.store.parent)) == 1


def test_a_worker_that_ended_while_nobody_looked_is_told_of_with_its_own_times(local):
    state = submitted()
    name = request(state)
    local.act(state)
    until(lambda: local.folder(name).result() and not local.folder(name).alive())
    ended = local.folder(name).result().ended_at
    time.sleep(0.2)
    finish(state, Local(local.store, STAND_IN, gpus=[]))
    assert state.attempts[name].ended_at == ended


# Stopping and killing


def test_told_to_stop_it_pauses_and_the_rest_gives_the_same_loss(local, monkeypatch, tmp_path):
    wanted = undisturbed(tmp_path, 20)
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e00")
    state = submitted(steps=20)
    name = request(state)
    local.act(state)
    working(local, name, 3)
    state.apply(Pausing(state.now, name, "enough"))
    heard = finish(state, local)
    assert isinstance(heard[-1], Paused)
    step = state.standings["e00"].step
    assert 3 <= step < 20 and state.standings["e00"].checkpoint.step == step
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    again = request(state)
    finish(state, local)
    assert [line.step for line in lines(local.folder(again))] == list(range(step, 21))
    assert state.standings["e00"].outcome.validation_loss == wanted


def test_killed_it_is_lost_and_only_what_no_checkpoint_held_is_trained_again(local, monkeypatch, tmp_path):
    wanted = undisturbed(tmp_path, 20)
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e00")
    state = submitted(steps=20)
    name = request(state)
    local.act(state)
    working(local, name, 5)
    kill(local, name)
    reached = lines(local.folder(name))[-1].step
    (*_, lost) = finish(state, local)
    assert isinstance(lost, Lost) and lost.why == "the worker vanished (it printed nothing)"
    saved = state.standings["e00"].step
    assert saved == reached - reached % 2  # a checkpoint every other step
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    again = request(state)
    finish(state, local)
    assert lines(local.folder(again))[0].step == saved
    assert state.standings["e00"].outcome.validation_loss == wanted


def test_a_damaged_checkpoint_is_not_trusted(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e00")
    state = submitted(steps=20)
    name = request(state)
    local.act(state)
    working(local, name, 5)
    kill(local, name)
    newest = max((local.folder(name).path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (newest / "e00" / "loss.txt").write_text("0x0p+0")
    finish(state, local)
    assert state.standings["e00"].step == int(newest.name) - 2


def test_a_worker_in_its_own_session_does_not_hear_our_ctrl_c(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", SLOW)
    state = submitted()
    name = request(state)
    local.act(state)
    until(lambda: local.folder(name).pid())
    assert os.getsid(local.folder(name).pid()) != os.getsid(0)
    finish(state, local)
    assert state.standings["e00"].status == "done"


def test_a_pid_that_is_not_the_workers_is_never_signalled(local):
    """The worker is gone, its number was given to a stranger: the lock is free, so nobody is signalled."""
    state = submitted()
    name = request(state)
    folder = local.folder(name)
    folder.prepare(assignment(state, state.attempts[name]))
    (folder.path / "log.txt").touch()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
    try:
        (folder.path / "worker.json").write_text(json.dumps({"pid": stranger.pid}))
        state.apply(Pausing(state.now, name, "enough", kill=True))
        local.act(state)
        finish(state, local)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert state.attempts[name].end == "lost"


@pytest.mark.parametrize("says", ["another's id", "nothing", "nonsense"])
def test_a_worker_that_does_not_say_who_it_is_is_found_by_its_folder(local, monkeypatch, says):
    """What it says of itself may be the identity of any other process, to the last tick."""
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "hang:e00")
    state = submitted(steps=20)
    name = request(state)
    local.act(state)
    working(local, name, 2)
    worker, path = local.folder(name).pid(), local.folder(name).path / "worker.json"
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=True)
    try:
        if says == "another's id":
            path.write_text(
                json.dumps(json.loads(path.read_text()) | {"pid": stranger.pid, "start": _start(stranger.pid)})
            )
        elif says == "nothing":
            path.unlink()
        else:
            path.write_text("[[")
        state.apply(Pausing(state.now, name, "enough", kill=True))
        finish(state, local)
        assert stranger.poll() is None and not Path(f"/proc/{worker}/exe").exists()
    finally:
        stranger.kill()
        stranger.wait()
    assert state.attempts[name].end == "lost"


# Bad workers


def live_to_the_end(local: Local, sweep, patience: timedelta | None = None) -> tuple[State, list]:
    journal: list = []
    world = Live(grid(), local)
    state = State([Submitted(world.now(), sweep, patience)])
    drive(state, journal, world, Immediate())
    return state, journal


def test_a_hanging_worker_is_told_to_stop_then_killed_and_fails_alone(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "hang:e00")
    quick = {"hours": 0.1 / 3600, "tick": timedelta(seconds=0.1), "devices": 2}
    state, journal = live_to_the_end(local, make_sweep(2, **quick), timedelta(seconds=0.6))
    assert [s.status for s in state.standings.values()] == ["failed", "done"]
    told = [(e.kill, e.why) for e in journal if isinstance(e, Pausing)]
    assert [kill for kill, _ in told] == [False, True] * (len(told) // 2)
    assert {why for _, why in told} == {"no progress for 0:00:00.600000"}
    assert state.standings["e00"].reason.endswith("without progress; the last: no progress for 0:00:00.600000")
    assert not local.alive(state) and not any(folder.alive() for folder in attempts(local.store.parent))


def test_a_frozen_worker_is_ended_and_never_writes_again(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "wait:e00")
    state = submitted(steps=20)
    name = request(state)
    local.act(state)
    working(local, name, 4)
    worker = local.folder(name).pid()
    os.killpg(worker, signal.SIGSTOP)
    state.apply(Pausing(state.now, name, "no progress", kill=True))
    (*_, lost) = finish(state, local)
    assert isinstance(lost, Lost) and state.standings["e00"].step >= 2
    assert not Path(f"/proc/{worker}/exe").exists() and local.folder(name).result() is None


def test_a_worker_whose_loss_is_nan_fails_for_good_and_alone(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:e00")
    state, _ = live_to_the_end(local, make_sweep(2))
    first, second = state.standings.values()
    assert (first.status, first.reason) == ("failed", "the training loss is nan at step 3")
    assert (len(first.attempts), second.status) == (1, "done")


def test_a_worker_that_vanishes_each_time_fails_alone(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "vanish:e00")
    state, _ = live_to_the_end(local, make_sweep(2, recipe=Recipe(steps=6, checkpoint_every=100)))
    first, second = state.standings.values()
    assert (first.status, len(first.attempts), second.status) == ("failed", 3, "done")
    assert not state.halted


def test_where_every_worker_crashes_alike_the_sweep_halts(local, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "crash:e")
    state, _ = live_to_the_end(local, make_sweep(6, devices=2))
    assert state.halted.endswith("for the same reason: the stand-in was told to crash")
    assert state.count("waiting") >= 3 and len(state.attempts) <= 9


def test_last_words_are_in_the_reason(tmp_path):
    local = Local(tmp_path / "store", [sys.executable, "-c", "import sys; sys.exit('no room on the GPU')"], gpus=[])
    state = submitted()
    request(state)
    (*_, lost) = finish(state, local)
    assert lost.why == "the worker vanished (its last words: no room on the GPU)"


def test_a_command_that_is_not_there_is_an_error_and_nothing_is_lost(tmp_path):
    local = Local(tmp_path / "store", ["/nowhere/python"], gpus=[])
    state = submitted()
    request(state)
    with pytest.raises(ExecutorError, match="No such file or directory; put that right and run again"):
        local.act(state)
    finish(state, Local(tmp_path / "store", STAND_IN, gpus=[]))
    request(state)
    finish(state, Local(tmp_path / "store", STAND_IN, gpus=[]))
    assert state.standings["e00"].status == "done"


@pytest.mark.parametrize("text", ["", "{", "null", '{"outcomes": "?"}'])
def test_a_corrupt_result_is_a_loss_that_keeps_its_checkpoint(local, text):
    state = submitted()
    name = request(state)
    local.act(state)
    until(lambda: local.changed(state))
    (local.folder(name).path / "result.json").write_text(text)
    (*_, lost) = look(state, local)
    assert isinstance(lost, Lost) and state.standings["e00"].step == 6


def test_a_torn_last_line_is_left_out(local):
    state = submitted()
    name = request(state)
    local.act(state)
    until(lambda: local.changed(state))
    with (local.folder(name).path / "progress.jsonl").open("ab") as file:
        file.write(b'{"at": "2024-0')
    heard = look(state, local)
    assert isinstance(heard[-1], Ended) and state.attempts[name].step == 6


# Where and as what a worker runs


ENVIRONMENT = (
    sys.executable,
    "-c",
    "import json, os, sys; json.dump([dict(os.environ), sys.argv], open(sys.argv[1] + '/seen.json', 'w'))",
)


def seen(local: Local, name: str):
    path = local.folder(name).path / "seen.json"
    until(lambda: not local.folder(name).alive())
    return json.loads(path.read_text())


def test_gpus_are_handed_out_by_the_order_of_the_devices(tmp_path):
    local = Local(tmp_path / "store", ENVIRONMENT, gpus=["GPU-a", "3"])
    state = submitted(devices=2)
    one, two = request(state, "e00", "d1"), request(state, "e01", "d0")
    local.act(state)
    assert [seen(local, name)[0]["CUDA_VISIBLE_DEVICES"] for name in (one, two)] == ["3", "GPU-a"]
    assert seen(local, one)[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_without_gpus_a_worker_has_one_thread_and_sees_none(tmp_path):
    local = Local(tmp_path / "store", ENVIRONMENT, gpus=[])
    state = submitted()
    name = request(state)
    local.act(state)
    environment, _ = seen(local, name)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("", "1")


def test_workers_on_one_cpu_are_told_of_each_other_and_those_on_gpus_are_not(tmp_path):
    devices = (Device("one"), Device("two", memory_gb=4), Device("three"))
    for gpus, beside in (([], (4, None)), (["0", "1", "2"], ())):
        state = submitted(devices=devices)
        local = Local(tmp_path / f"store{len(gpus)}", STAND_IN, gpus=gpus)
        name = request(state, "e00", "one")
        local.act(state)
        told = local.folder(name).assignment()
        assert (told.device.name, told.beside) == ("one", beside)
        until(lambda local=local, name=name: not local.folder(name).alive())


def test_more_devices_than_gpus_are_refused(tmp_path):
    state = submitted(devices=2)
    request(state, device="d1")
    with pytest.raises(ExecutorError, match=r"d1 is device 2 of the sweep, and this machine shows 1 GPU"):
        Local(tmp_path / "store", ENVIRONMENT, gpus=["0"]).act(state)


def test_a_device_that_was_taken_out_of_the_spec_meanwhile_does_no_harm(local):
    state = submitted(devices=2)
    request(state, device="d1")
    state.sweep = make_sweep(2, devices=1)
    finish(state, local)
    assert state.standings["e00"].status == "done"


@pytest.mark.parametrize(("listed", "wanted"), [("", []), ("-1", []), ("0", ["0"]), ("2, GPU-x", ["2", "GPU-x"])])
def test_visible_gpus_are_those_that_were_left_visible(monkeypatch, listed, wanted):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == wanted


def test_what_a_shell_would_run_is_inert(tmp_path):
    store = tmp_path / "st ore; touch pwned $(touch pwned) `touch pwned` & '\""
    id = "e; touch pwned $(touch pwned) `x` * ' \" \n-rf"
    odd = Experiment(id, LoraParams(8, 32.0, 1e-4, 0.05), 0, URGENT.name, "odd")
    state = State([Submitted(START, make_sweep(1, experiments=(odd,)))])
    request(state, id)
    finish(state, Local(store, STAND_IN, gpus=[]))
    assert state.standings[id].status == "done"
    assert (store / "experiments" / id / "adapter" / "adapter_config.json").exists()
    assert not list(tmp_path.rglob("pwned")) and not Path("pwned").exists()


# Publishing


def test_an_adapter_is_published_whole_and_once(local):
    state = submitted()
    name = request(state)
    finish(state, local)
    final = local.store / "experiments" / "e00" / "adapter"
    made = final.stat().st_ino
    Local(local.store, STAND_IN, gpus=[]).act(state)
    assert final.stat().st_ino == made and [p.name for p in final.parent.iterdir()] == ["adapter"]
    assert (local.store / state.standings["e00"].outcome.adapter).exists()
    assert state.attempts[name].end == "ended"


def test_a_copy_that_was_cut_off_is_made_again(local):
    state = submitted()
    request(state)
    local.act(state)
    until(lambda: local.changed(state))
    look(state, local)
    draft = local.store / "experiments" / "e00" / ".adapter"
    draft.mkdir(parents=True)
    (draft / "half").touch()
    local.act(state)
    assert {p.name for p in (draft.parent / "adapter").iterdir()} == {"adapter_config.json", "manifest.json"}
    assert not draft.exists()


def test_an_adapter_that_cannot_be_published_is_an_error_that_says_where_it_is(local):
    state = submitted()
    request(state)
    local.act(state)
    until(lambda: local.changed(state))
    look(state, local)
    (local.store / "experiments").write_text("a file where a folder should be")
    with pytest.raises(ExecutorError, match=r"cannot publish the adapter of e00 .* it is safe in"):
        local.act(state)
    (local.store / "experiments").unlink()
    local.act(state)
    assert (local.store / "experiments" / "e00" / "adapter").is_dir()


def test_devices_have_their_names_in_the_assignment():
    state = submitted(devices=(Device("left", power_w=30),))
    name = request(state, device="left")
    told = assignment(state, state.attempts[name])
    assert (told.attempt, told.device.name, told.device.power_w) == (name, "left", 30)
    assert [(p.experiment, p.from_step, p.to_step, p.checkpoint) for p in told.members] == [("e00", 0, 6, None)]


def test_a_worker_takes_no_more_of_the_machine_than_the_spec_allows(tmp_path):
    greedy = """
import errno, json, resource, sys, time
time.sleep(0.5)
told = {"files": resource.getrlimit(resource.RLIMIT_NOFILE)}
try:
    bytearray(10**9)
except MemoryError:
    told["memory"] = "refused"
try:
    with open(sys.argv[1] + "/large", "wb") as file:
        for _ in range(30):
            file.write(bytes(10**6))
except OSError as error:
    told["file"] = errno.errorcode[error.errno]
json.dump(told, open(sys.argv[1] + "/seen.json", "w"))
"""
    limits = Limits(memory_gb=0.5, file_gb=0.02, open_files=10**9)
    local = Local(tmp_path, (sys.executable, "-c", greedy), gpus=[])
    state = submitted(executor=ExecutorChoice(local=limits))
    name = request(state)
    local.act(state)
    until(lambda: local.changed(state))
    found = json.loads((local.folder(name).path / "seen.json").read_text())
    assert (found["memory"], found["file"]) == ("refused", "EFBIG")
    assert found["files"][1] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a lower one of the system stays


def test_a_worker_gets_no_token_and_its_log_names_what_it_did_not_get(tmp_path, monkeypatch):
    monkeypatch.setenv("WATTTIME_PASSWORD", "canary")
    monkeypatch.setenv("HF_HOME", "/models")
    dump = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1] + '/seen.json', 'w')); print('a word')"
    local, state = Local(tmp_path, (sys.executable, "-c", dump), gpus=[]), submitted()
    folder = local.folder(request(state)).path
    local.act(state)
    until(lambda: local.changed(state) and "withheld" in (folder / "log.txt").read_text())
    seen = json.loads((folder / "seen.json").read_text())
    assert "WATTTIME_PASSWORD" not in seen and (seen["HF_HOME"], seen["OMP_NUM_THREADS"]) == ("/models", "1")
    (line,) = [line for line in local.logs(next(iter(state.attempts))) if line != "a word"]
    assert line.startswith("withheld from the worker's environment: ") and "WATTTIME_PASSWORD" in line
    assert not any(b"canary" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert look(state, local)[-1].why == "the worker vanished (its last words: a word)"
