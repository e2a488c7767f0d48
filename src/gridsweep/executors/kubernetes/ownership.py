"""Ownership of RayJobs and of files on the volume: by sweep, by run of the sweep, and by assignment."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any  # a Kubernetes object

from gridsweep.executors.assigning import assignment
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, PREFIX, SWEEP, digest, label_value
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.records.bounded import said
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State

RUN = f"{PREFIX}run"
"""The annotation with the run of the sweep that created a RayJob: two runs of one spec must not share RayJobs."""
EARLIER = timedelta(minutes=5)
"""A worker that started this long before the submission belongs to another run, even if the clocks differ."""


def selector(state: State) -> str:
    """Return the label selector for all objects of the sweep."""
    return f"{SWEEP}={label_value(state.sweep.name)}"


def run_of(state: State) -> str:
    """Return a name for the submission, the same whenever the journal is read."""
    # A replayed grid begins at the same time in every run; the wall time distinguishes the runs.
    anchored = [state.anchors[0].wall.isoformat()] if state.sweep.replay and state.anchors else []
    return digest(state.sweep.name, state.submitted_at.isoformat(), *anchored)


def attempt_of(job: dict[str, Any], state: State) -> str:
    """Return the attempt that a RayJob was created for; "" if another run created the RayJob."""
    notes = job["metadata"].get("annotations") or {}
    return str(notes.get(ATTEMPT, "")) if notes.get(RUN) == run_of(state) else ""


def made_for(job: dict[str, Any], state: State, attempt: Attempt) -> bool:
    """Return whether this run created a RayJob for these same members of the attempt.

    The rest of an assignment may differ: devices are described anew, and what the sweep takes as constant, such as
    revisions of model and data, is known only once its first worker has told.
    """
    theirs, ours = _work_of(job), assignment(state, attempt)
    same = theirs is not None and (theirs.attempt, theirs.members) == (ours.attempt, ours.members)
    return same and attempt_of(job, state) == attempt.id


def _work_of(job: dict[str, Any]) -> Assignment | None:
    """Return the assignment in a RayJob; None if there is no valid one."""
    try:
        containers = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
        values = {variable["name"]: variable.get("value", "") for variable in containers[0]["env"]}
        return codec.loads(Assignment, values["GRIDSWEEP_ASSIGNMENT"].replace("$$(", "$("))
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def earlier_run(folder: Path, state: State) -> bool:
    """Return whether the worker of a folder started before this sweep was submitted."""
    try:
        at = datetime.fromisoformat(said(folder / "worker.json")["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if at.tzinfo is None:
        return False
    submitted = state.anchors[0].wall if state.sweep.replay and state.anchors else state.submitted_at
    return at < submitted - EARLIER
