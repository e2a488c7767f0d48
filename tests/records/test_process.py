"""Whose process a file names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import until
from gridsweep.records.process import Process, _start, seen, tell, this_process

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, which has a child in it."""
    code = f"import subprocess, sys; subprocess.Popen({SLEEP!r}); print('up', flush=True); import time; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"up\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def named(pid: int) -> Process:
    return replace(this_process(), pid=pid, start=_start(pid))


def test_this_process_is_alive_and_a_child_that_ended_is_gone() -> None:
    assert seen(this_process()) == "alive"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = named(child.pid)
    until(lambda: seen(process) == "gone")  # though its id is held until it is waited for
    child.wait()
    assert seen(process) == "gone" and not tell(process, signal.SIGTERM)


def test_the_whole_group_is_told(child: subprocess.Popen[bytes]) -> None:
    assert tell(named(child.pid), signal.SIGKILL, group=True)
    child.wait()
    until(lambda: not any(line.split()[2] == str(child.pid) for line in processes()))


def processes() -> list[str]:
    """Id, state and group of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if state != "Z":
            found.append(f"{path.parent.name} {state} {group}")
    return found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"start": 1}, "gone"),  # the id was given to another process
        ({"boot": "another"}, "gone"),  # the machine was started again
        ({"boot": "another", "host": "another"}, "elsewhere"),
        ({"namespace": "pid:[1]"}, "elsewhere"),
        ({"boot": "", "namespace": "", "start": 0}, "alive"),  # a signature of 0.1.0
        ({"boot": "", "namespace": "", "start": 0, "host": "another"}, "elsewhere"),
    ],
)
def test_an_id_alone_is_nobody(child: subprocess.Popen[bytes], changes: dict[str, object], expected: str) -> None:
    process = replace(named(child.pid), **changes)  # type: ignore[arg-type]  # a test's own fields
    assert seen(process) == expected
    if expected != "alive":
        assert not tell(process, signal.SIGKILL, group=True)
        assert child.poll() is None


@given(
    st.dictionaries(
        st.sampled_from(["pid", "host", "boot", "namespace", "start"]), st.text() | st.integers() | st.none()
    )
)
def test_any_signature_is_a_process_or_none(said: dict[str, object]) -> None:
    process = Process.of(said)
    assert process is None or 1 < process.pid < 2**31


def test_a_signature_is_read_as_it_was_written() -> None:
    assert Process.of(this_process().signature()) == this_process()


def test_another_namespace_is_elsewhere() -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rpf", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no process may have a namespace of its own here")
    code = (
        "import json; from gridsweep.records.process import this_process; print(json.dumps(this_process().signature()))"
    )
    asked = ["unshare", "-rpf", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no namespace here: {done.stderr[-200:]}")
    process = Process.of({**json.loads(done.stdout), "pid": os.getpid()})
    assert process is not None and seen(process) == "elsewhere"


def test_without_the_kernels_handles_an_id_that_nobody_has_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert seen(this_process()) == "alive" and seen(replace(this_process(), start=1)) == "gone"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = named(child.pid)
    child.wait()
    assert seen(process) == "gone" and seen(replace(process, start=0)) == "gone"
