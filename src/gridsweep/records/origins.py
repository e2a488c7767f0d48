"""Where a run folder comes from, if no run on this machine drives it: kept as `state/origin.json`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gridsweep.errors import SpecError
from gridsweep.records.bounded import said
from gridsweep.records.files import replace_file


@dataclass(frozen=True, slots=True)
class Origin:
    """`collected`: other components start the jobs; `copy`: the loop lives elsewhere, and this is a copy of its folder.

    `source` names the place that the folder was read from; `again` is the command that brings it up to date; `there`
    is what to do in the cluster instead of a verb that drives a sweep.
    """

    kind: Literal["collected", "copy"]
    source: str
    again: str
    there: str


def mark(state: Path, origin: Origin) -> None:
    """Mark a run's folder, by its `state` folder. Raise `OSError` if it cannot be written."""
    import json
    from dataclasses import asdict

    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(state / "origin.json", json.dumps(asdict(origin), indent=1) + "\n")


def origin_of(state: Path) -> Origin | None:
    """Return the mark of a run's folder; None for a folder that a run on this machine drives."""
    try:
        found = said(state / "origin.json")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        if not os.path.lexists(state / "origin.json"):  # something else is in the folder's place
            return None
        found = {}
    kind: Literal["collected", "copy"] = "copy" if found.get("kind") == "copy" else "collected"
    source, again, there = (str(found.get(name, otherwise)) for name, otherwise in UNREADABLE.items())
    return Origin(kind, source, again, there)


UNREADABLE = {"source": "a cluster", "again": "gridsweep collect SPEC FOLDER", "there": "use kubectl"}
"""What is said of a mark that cannot be read: the folder stays one that no run here may drive."""


def check_driven_here(state: Path) -> None:
    """Raise `SpecError` if no run on this machine may drive the sweep in a folder."""
    origin = origin_of(state)
    if origin is None:
        return
    what = "was collected from" if origin.kind == "collected" else "is a copy: the loop lives in"
    raise SpecError(
        f"{state.parent} {what} {origin.source}, and is not driven from here",
        remedy=f"{origin.there}; then bring the folder up to date with `{origin.again}`",
    )
