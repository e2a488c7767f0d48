import json
import os
import signal
import subprocess
import sys
import time

import pytest

from builders import FORK, START
from gridsweep.executors.border import read_lines
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine, Outcome, Part, Progress, Result
from gridsweep.records.files import digest, replace_file, verify
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Device

PART = Part("e00", LoraParams(8, 32.0, 1e-4, 0.05), 1, 0, 6)
ASSIGNMENT = Assignment("s-1/1", Model("m"), Dataset("d"), Recipe(), 6, Device("d0"), (PART,))


@pytest.fixture
def folder(tmp_path) -> AttemptFolder:
    made = AttemptFolder(tmp_path / "store" / "stints" / "s-1" / "1")
    made.prepare(ASSIGNMENT)
    return made


def save(folder: AttemptFolder, step: int, text: str = "weights") -> None:
    with folder.saving("e00", step) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "adapter.bin").write_text(text)


# The assignment


def test_a_folder_is_prepared_whole_and_once(folder):
    assert folder.assignment() == ASSIGNMENT
    folder.prepare(Assignment("other", Model("m"), Dataset("d"), Recipe(), 6, Device("d0"), ()))
    assert folder.assignment() == ASSIGNMENT
    assert [path.name for path in folder.path.parent.iterdir()] == ["1"]


def test_a_preparation_that_was_killed_leaves_no_folder(tmp_path):
    folder = AttemptFolder(tmp_path / "store" / "stints" / "s-1" / "1")
    left = folder.path.with_name(f".1.{os.getpid()}")
    left.mkdir(parents=True)
    (left / "half").touch()
    folder.prepare(ASSIGNMENT)
    assert folder.assignment() == ASSIGNMENT and not (folder.path / "half").exists()


# The lock


def test_one_at_a_time_holds_the_lock(folder):
    assert not folder.alive()
    handle = folder.lock()
    assert handle is not None and folder.alive() and folder.lock() is None
    os.close(handle)
    assert not folder.alive()


def test_a_child_keeps_the_lock_that_its_parent_let_go(folder):
    handle = folder.lock()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], pass_fds=(handle,))
    os.close(handle)
    assert folder.alive()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not folder.alive()


def test_who_works_here_is_known_after_signing_in(folder):
    assert folder.pid() is None
    folder.sign_in()
    assert folder.pid() == os.getpid()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": "x"}', '{"pid": null}', "null", '{"pid": 0}', '{"pid": -1}']
)
def test_a_damaged_signature_names_nobody(folder, text):
    (folder.path / "worker.json").write_text(text)
    assert folder.pid() is None


# Checkpoints


def test_a_checkpoint_appears_with_its_digest(folder):
    save(folder, 2)
    found = folder.checkpoint("e00")
    assert (found.step, found.path) == (2, "stints/s-1/1/checkpoints/2/e00")
    assert verify(folder.store / found.path, found.digest) and found.digest == digest(folder.store / found.path)


def test_a_checkpoint_that_was_not_finished_is_not_there(folder):
    save(folder, 2)
    with pytest.raises(RuntimeError), folder.saving("e00", 4) as draft:
        (draft / "adapter.bin").write_text("half")
        raise RuntimeError("killed")
    assert folder.checkpoint("e00").step == 2


@pytest.mark.parametrize("harm", ["change", "remove", "{", "[]", '{"files": []}'])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(folder, harm):
    save(folder, 2)
    save(folder, 4)
    path = folder.path / "checkpoints" / "4" / "e00"
    match harm:
        case "change":
            (path / "sub" / "adapter.bin").write_text("weightz")
        case "remove":
            (path / "sub" / "adapter.bin").unlink()
        case text:
            (path / "manifest.json").write_text(text)
    assert folder.checkpoint("e00").step == 2


def test_the_newest_is_the_one_with_most_steps_and_others_are_forgotten(folder):
    for step in (2, 4, 10, 8):
        save(folder, step)
    assert folder.checkpoint("e00").step == 10
    assert folder.checkpoint("e00", at_most=9).step == 8
    folder.forget_checkpoints()
    assert sorted(p.name for p in (folder.path / "checkpoints").iterdir()) == ["10", "8"]
    assert folder.checkpoint("e01") is None


def test_the_same_checkpoint_may_be_saved_again(folder):
    save(folder, 2, "first")
    save(folder, 2, "second")
    assert (folder.path / "checkpoints/2/e00/sub/adapter.bin").read_text() == "second"
    assert folder.checkpoint("e00").step == 2


def test_the_digest_is_over_the_content(folder, tmp_path):
    save(folder, 2, "same")
    one = folder.checkpoint("e00").digest
    save(folder, 2, "same")
    assert folder.checkpoint("e00").digest == one
    save(folder, 2, "other")
    assert folder.checkpoint("e00").digest != one


# The result


def test_a_result_comes_back(folder):
    result = Result(START, (Outcome("e00", "done", 6, "", 1.0, 0.1 + 0.2, 4.0),), facts={"torch": "2"})
    folder.finish(result)
    assert folder.result() == result


@pytest.mark.parametrize("text", ["", "{", "null", '{"ended_at": "noon"}', "\0\0\0"])
def test_a_corrupt_result_is_none(folder, text):
    (folder.path / "result.json").write_text(text)
    assert folder.result() is None


def interrupted(handle: int) -> None:
    raise KeyboardInterrupt


def test_a_file_that_is_replaced_stays_as_it_was_where_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    replace_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "new, and then a letter that cannot be written: \ud800")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def save_for_ever(folder: AttemptFolder) -> None:
    step = 0
    while True:
        step += 1
        save(folder, step, f"{step}" * 1000)
        folder.append(Progress(START, "training", step, {"e00": 1.0}))
        folder.finish(Result(START, (Outcome("e00", "done", step),)))


def test_whatever_moment_a_worker_is_killed_at_what_is_there_is_whole(folder):
    for delay in (0.02, 0.05, 0.031, 0.044, 0.06):
        process = FORK.Process(target=save_for_ever, args=(folder,))
        process.start()
        time.sleep(delay)
        process.kill()
        process.join()
        for manifest in folder.path.glob("checkpoints/*/e00/manifest.json"):
            assert verify(manifest.parent)
        assert not (folder.path / "result.json").exists() or folder.result()


# Lines


def test_lines_are_read_on_from_where_one_stopped(folder):
    path = folder.path / "progress.jsonl"
    assert read_lines(Progress, path, 0) == ([], 0)
    folder.append(Progress(START, "training", 1, {"e00": 0.1}))
    one, cursor = read_lines(Progress, path, 0)
    folder.append(Progress(START, "training", 2, {}))
    two, end = read_lines(Progress, path, cursor)
    assert [line.step for line in one + two] == [1, 2] and end == path.stat().st_size
    assert read_lines(Progress, path, end) == ([], end)


def test_a_torn_last_line_waits_for_its_end(folder):
    path = folder.path / "progress.jsonl"
    folder.append(Progress(START, "training", 1, {}))
    whole = path.stat().st_size
    torn = path.read_bytes().replace(b'"step":1', b'"step":2')
    with path.open("ab") as file:
        file.write(torn[:20])
    lines, cursor = read_lines(Progress, path, 0)
    assert [line.step for line in lines] == [1] and cursor == whole
    with path.open("ab") as file:
        file.write(torn[20:])
    assert [line.step for line in read_lines(Progress, path, cursor)[0]] == [2]


def test_reading_ends_before_a_line_that_is_none(folder):
    path = folder.path / "energy.jsonl"
    folder.append(EnergyLine(START, 1.0, 0.5, "modelled", 1))
    with path.open("ab") as file:
        file.write(b" \n\n")  # nothing is said, nothing is lost
    good = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\xff\xfe\x00\n")
    folder.append(EnergyLine(START, 1.0, 0.25, "modelled", 2))
    lines, end = read_lines(EnergyLine, path, 0)
    assert [line.kwh for line in lines] == [0.5] and end == good


def test_an_unknown_loss_is_written_as_null(folder):
    folder.append(Progress(START, "training", 1, {"e00": float("nan")}))
    assert json.loads((folder.path / "progress.jsonl").read_text())["losses"] == {"e00": None}
    assert read_lines(Progress, folder.path / "progress.jsonl", 0)[0][0].losses == {"e00": None}
