"""The first program of a pod: refuses an image of another version, then becomes the worker, or gridsweep itself.

    python -P -m gridsweep.executors.kubernetes.start              becomes the worker of GRIDSWEEP_ASSIGNMENT
    python -P -m gridsweep.executors.kubernetes.start run ...      becomes `gridsweep run ...`

The manifest and the image's package share a protocol (the assignment, the attempt's folder, the verbs) that has no
version of its own; a mismatch would show as an error deep in a log. It is a program and not a line of shell, because a
folder may have only one writer, and KubeRay submits a job again, to the same folder, when the head has been replaced.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from gridsweep import __version__
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder

VERSION = "GRIDSWEEP_VERSION"
"""The variable with the version that wrote the manifest."""


def main() -> None:
    """Become the program that the arguments name. Exit with words if this image, or the folder, does not fit."""
    wanted = os.environ.get(VERSION, __version__)
    if wanted != __version__:
        sys.exit(f"the image holds gridsweep {__version__}, this needs {wanted}; use an image of that version")
    if sys.argv[1:]:
        _become("-m", "gridsweep", *sys.argv[1:])
    task = codec.loads(Assignment, os.environ["GRIDSWEEP_ASSIGNMENT"])
    folder, task = _fresh(Path(os.environ["GRIDSWEEP_STORE"]), task, again=os.environ.get("GRIDSWEEP_AGAIN") == "1")
    folder.prepare(task)
    _take(folder)
    _become("-m", os.environ.get("GRIDSWEEP_WORKER", "gridsweep.train"), str(folder.path))


def _fresh(store: Path, task: Assignment, *, again: bool) -> tuple[AttemptFolder, Assignment]:
    """Return the folder to work in, and its assignment. Exit if the work is done, or is another attempt's.

    Folders are never reused. With `again` (no loop: a resumed RayJob) work goes on in the next one, from the newest
    whole checkpoint; else (the loop drives) it is refused. Finished work is not repeated.
    """
    stint, _, number = task.attempt.rpartition("/")
    folder = AttemptFolder(store / "stints" / stint / number)
    while (folder.path / "worker.json").exists():
        result = folder.result()
        if result and not result.error and all(outcome.status != "paused" for outcome in result.outcomes):
            sys.exit(1 if any(outcome.status == "failed" for outcome in result.outcomes) else 0)
        if not again:
            sys.exit(f"{folder.path} has been worked in; what remains of it is for another attempt")
        saved = {part.experiment: folder.checkpoint(part.experiment) for part in task.members}
        parts = [(part, saved[part.experiment] or part.checkpoint) for part in task.members]
        members = tuple(replace(part, from_step=c.step, checkpoint=c) if c else part for part, c in parts)
        number = str(int(number) + 1)
        task = replace(task, attempt=f"{stint}/{number}", members=members)
        folder = AttemptFolder(store / "stints" / stint / number)
    return folder, task


def _take(folder: AttemptFolder) -> None:
    """Hold the folder's lock, write to its log from here on, and tell the pod's preStop whom to stop."""
    try:
        lock = folder.lock()
    except OSError:  # a network share that cannot lock folders
        lock = -1
    if lock is None:
        sys.exit(f"a worker lives in {folder.path}")
    if lock >= 0:
        os.set_inheritable(lock, True)
    log = os.open(folder.path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Path(os.environ["HOME"], "worker").write_text(f"{os.getpid()} {folder.path}\n")


def _become(*arguments: str) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-P", *arguments])


if __name__ == "__main__":
    main()
