"""The program of a Ray job: unpack the inputs, run a worker, and publish its files for fetching while it runs.

    python -m gridsweep.executors.ray.entrypoint        in the job's working folder, which holds job.json

The files to fetch are in the session's log folder, gridsweep/<submission id>/, which Ray's dashboard can read. They
stay there after the worker has ended, until another job of the same run on that node removes them as no longer needed.
Ray sends SIGTERM to a job and all its children; this program keeps running, so that the worker can save its state.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any  # job.json

from gridsweep.executors.ray.parcels import Outbox, unpack

LOOK_SECONDS = 0.2
PUT_SECONDS = 0.5
EXIT_GRACE = 30.0
"""Seconds a worker may take to exit after writing its result."""
OUTBOXES = "gridsweep"

_PR_SET_PDEATHSIG = 1


class Stop:
    """SIGTERM handler that records when a stop was first requested, and forwards the signal to the worker."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.since = self.since or time.monotonic()
        if self.worker is not None:
            self.worker.send_signal(signal.SIGTERM)


def main() -> int:
    """Run one attempt's worker and return its exit code: 128 plus the signal's number if it was killed."""
    stop = Stop()
    signal.signal(signal.SIGTERM, stop)
    job = json.loads(Path("job.json").read_text())
    if job["store"]:
        folder, outbox = Path(job["store"]) / "stints" / job["attempt"], None
    else:
        store = Path("store").absolute()
        folder = store / "stints" / job["attempt"]
        outboxes = log_folder() / OUTBOXES
        for name in job["forget"]:
            shutil.rmtree(outboxes / name, ignore_errors=True)
        unpack(job["inputs"], store, piece_of(search_path()))
        outbox = Outbox(folder, outboxes / job["id"])
    if stop.since is not None:
        return 128 + signal.SIGTERM
    code = work(job, folder, outbox, stop)
    return 128 - code if code < 0 else code


def work(job: dict[str, Any], folder: Path, outbox: Outbox | None, stop: Stop) -> int:
    """Start the worker, wait for its end, and return its exit code."""
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # shows that the worker is alive, if the folder is shared
    command = [sys.executable if word == "python" else word for word in job["command"]]
    with (folder / "log.txt").open("ab") as log:
        worker = stop.worker = subprocess.Popen(
            [*command, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            preexec_fn=die_with_me,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path())},
        )
    os.close(lock)
    put_at = done_at = 0.0
    while worker.poll() is None:
        moment = time.monotonic()
        if outbox and moment - put_at >= PUT_SECONDS:
            outbox.put()
            put_at = moment
        if not done_at and (folder / "result.json").exists():
            done_at = moment
        deaf = stop.since is not None and moment - stop.since > job["grace"]
        if deaf or (done_at and moment - done_at > EXIT_GRACE):
            worker.kill()
        time.sleep(LOOK_SECONDS)
    if outbox:
        outbox.put(over=True)
    return worker.returncode


def die_with_me() -> None:
    """Have the kernel kill this process when its parent dies, so that no orphaned worker holds a device."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def log_folder() -> Path:
    """Return the session's log folder, to which Ray writes this job's output."""
    return Path("/proc/self/fd/1").readlink().parent


def search_path() -> list[str]:
    """Return the folders with code and inputs: the job's own folder, then the entries Ray put on the path."""
    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys([str(Path.cwd()), *(entry for entry in listed if entry)]))


def piece_of(places: Sequence[str]) -> Callable[[str], bytes]:
    """Return a function that reads a piece from any of this job's packages."""

    def fetch(piece: str) -> bytes:
        found = next(path for place in places if (path := Path(place) / "pieces" / piece).exists())
        return found.read_bytes()

    return fetch


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
