"""Whose a RayJob is, and whose the files on the volume: which sweep, which run of it, which work."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any  # a Kubernetes object

from gridsweep.executors.handover import assignment
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, PREFIX, SWEEP, digest, label_value
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State

RUN = f"{PREFIX}run"
"""The annotation that says which run of the sweep made a RayJob: two runs of one spec must not take each other's."""
EARLIER = timedelta(minutes=5)
"""A worker that signed in so long before the submission was another run's, whatever the clocks say."""


def selector(state: State) -> str:
    """The labels of all that belongs to the sweep."""
    return f"{SWEEP}={label_value(state.sweep.name)}"


def run_of(state: State) -> str:
    """A name for the submission, the same whenever the journal is read."""
    # A replayed grid begins at the same time in every run; the wall tells them apart.
    anchored = [state.anchors[0].wall.isoformat()] if state.sweep.replay and state.anchors else []
    return digest(state.sweep.name, state.submitted_at.isoformat(), *anchored)


def attempt_of(job: dict[str, Any], state: State) -> str:
    """The attempt that a RayJob of this run was made for; "" where it is not this run's."""
    notes = job["metadata"].get("annotations") or {}
    return str(notes.get(ATTEMPT, "")) if notes.get(RUN) == run_of(state) else ""


def made_for(job: dict[str, Any], state: State, attempt: Attempt) -> bool:
    """Whether this run made a RayJob for this very work. The device may have been described anew since."""
    theirs, ours = _work_of(job), assignment(state, attempt)
    same = theirs is not None and replace(theirs, device=ours.device) == ours
    return same and attempt_of(job, state) == attempt.id


def _work_of(job: dict[str, Any]) -> Assignment | None:
    """What the worker of a RayJob is told; None where that is no assignment of ours."""
    try:
        containers = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
        values = {variable["name"]: variable.get("value", "") for variable in containers[0]["env"]}
        return codec.loads(Assignment, values["GRIDSWEEP_ASSIGNMENT"].replace("$$(", "$("))
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def earlier_run(folder: Path, state: State) -> bool:
    """Whether the worker of a folder signed in before this sweep was submitted."""
    try:
        at = datetime.fromisoformat(json.loads((folder / "worker.json").read_text())["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    submitted = state.anchors[0].wall if state.sweep.replay and state.anchors else state.submitted_at
    return at < submitted - EARLIER
