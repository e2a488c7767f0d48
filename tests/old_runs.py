"""Run folders that gridsweep 0.1.0 wrote (`tests/old_folders`): how they are unpacked, and what is compared of them.

`tests/old_folders/make.py` wrote the expected values with the same functions.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from dataclasses import is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gridsweep.grid.archive import _Page
from gridsweep.records.attempts import Assignment, EnergyLine, Progress, Result
from gridsweep.records.journal import Journal
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import exit_code, summarize
from gridsweep.state.events import Event
from gridsweep.state.state import State

HERE = Path(__file__).parent / "old_folders"
EXPECTED = HERE / "expected"
VERBS: dict[str, tuple[str, ...]] = {
    "status.txt": ("status", "{folder}"),
    "status.json": ("status", "{folder}", "--json"),
    "models.txt": ("models", "{folder}"),
    "report.txt": ("report", "{folder}"),
    "report.md": ("report", "{folder}", "--markdown"),
    "report.json": ("report", "{folder}", "--json"),
}
"""What is kept of what the command line says of every folder, and the command that says it."""
FILES = {"Assignment": Assignment, "Progress": Progress, "EnergyLine": EnergyLine, "Result": Result, "Archive": _Page}
"""Other values than events that are written into files and read again by later versions."""
LEAVES = {
    Any: "anything",
    str: "text",
    bool: "flag",
    int: "whole number",
    float: "number",
    datetime: "instant",
    timedelta: "span",
}


def names() -> list[str]:
    """The old folders."""
    return sorted(path.name.removesuffix(".tar.gz") for path in HERE.glob("*.tar.gz"))


def unpack(name: str, to: Path) -> Path:
    """Unpack a folder and the data file that its workers read into `to`; returns the folder."""
    with tarfile.open(HERE / f"{name}.tar.gz") as archive:
        archive.extractall(to, filter="data")
    (to / "pairs.jsonl").write_bytes((HERE / "pairs.jsonl").read_bytes())
    return to / name


def expected(name: str, file: str) -> Any:
    """An expected value, or a text."""
    text = (EXPECTED / name / file).read_text(encoding="utf-8")
    return json.loads(text) if file.endswith(".json") else text


def explained(ids: list[str]) -> dict[str, tuple[str, ...]]:
    """The commands that explain the first and the last experiment."""
    return {f"explain-{n}.txt": ("explain", ids[i], "{folder}") for n, i in (("first", 0), ("last", -1))}


def bodies(folder: Path) -> list[dict[str, Any]]:
    """The journal's events as they were written."""
    db = sqlite3.connect(folder / "state" / "journal.db")
    try:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM events ORDER BY seq")]
    finally:
        db.close()


def events(folder: Path) -> list[Event]:
    """The journal's events as they are read."""
    journal = Journal(RunFolder(folder).journal)
    try:
        return journal.events()
    finally:
        journal.close()


def facts(folder: Path) -> dict[str, Any]:
    """What a folder holds, under names of its own, so that it may be compared whatever reports call it."""
    state = RunFolder(folder).read()
    made = summarize(state)
    best = made.best
    return {
        "exit_code": exit_code(state),
        "state": made.state,
        "experiments": {id: _experiment(state, id) for id in state.standings},
        "order": [row.experiment for row in made.rows],
        "best": best.experiment if best else None,
        "energy_kwh": made.energy_kwh,
        "unknown_kwh": made.unknown_kwh,
        "wasted_kwh": made.wasted_kwh,
        "idle_kwh": made.idle_kwh,
        "emissions_g": made.emissions_g,
        "immediate_g": made.immediate_g,
        "saving_g": made.saving_g,
        "settled_saving_g": made.settlement.saving_g if made.settlement else None,
        "makespan_h": made.makespan_h,
        "immediate_makespan_h": made.immediate_makespan_h,
        "rungs": [[event.step, list(event.kept), list(event.stopped)] for event in state.rankings],
        "added": [[event.after, [e.id for e in event.experiments]] for event in state.additions],
    }


def _experiment(state: State, id: str) -> dict[str, Any]:
    standing = state.standings[id]
    saved = standing.checkpoint
    return {
        "tier": standing.experiment.tier,
        "seed": standing.experiment.seed,
        "step": standing.step,
        "attempts": list(standing.attempts),
        "started": standing.first_running_at.isoformat() if standing.first_running_at else None,
        "ended": standing.ended_at.isoformat() if standing.ended_at else None,
        "checkpoint": [saved.step, saved.path, saved.digest] if saved else None,
        **measured(state, id),
    }


def measured(state: State, id: str) -> dict[str, Any]:
    """What became of an experiment, and every loss that was measured of it."""
    standing = state.standings[id]
    outcome = standing.outcome
    scores = {
        str(step): [score.train_loss, list(score.losses.values) if score.losses else None]
        for step, score in standing.scores.items()
    }
    if outcome is None:
        return {"status": standing.status, "scores": scores}
    return {
        "status": standing.status,
        "train_loss": outcome.train_loss,
        "initial_validation_loss": outcome.initial_validation_loss,
        "validation_loss": outcome.validation_loss,
        "averaged_validation_loss": outcome.averaged_validation_loss,
        "losses": [list(outcome.losses.values), list(outcome.losses.tokens)] if outcome.losses else None,
        "scores": scores,
    }


def resumed(folder: Path) -> dict[str, Any]:
    """What became of all experiments of a folder."""
    state = RunFolder(folder).read()
    return {"exit_code": exit_code(state), "experiments": {id: measured(state, id) for id in state.standings}}


# How values are written


def encoding() -> list[str]:
    """Every name under which something is written, with the kind of its value: `Running.attempt: text`.

    Classes do not appear: what they are called and where they live is written nowhere, but for the kinds of events.
    """
    lines: set[str] = set()
    for kind in get_args(Event):
        _fields(kind, kind.__name__, lines)
    for name, kind in FILES.items():
        _fields(kind, name, lines)
    return sorted(lines)


def kinds() -> set[str]:
    """The kinds of events."""
    return {kind.__name__ for kind in get_args(Event)}


def _fields(kind: Any, path: str, lines: set[str]) -> None:
    for name, hint in get_type_hints(kind).items():
        _written(hint, f"{path}.{name}", lines)


def _written(kind: Any, path: str, lines: set[str]) -> None:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for arg in args:
            _written(arg, path, lines)
    elif origin is Literal:
        lines.update(f"{path}: {value!r}" for value in args)
    elif origin is tuple and args[-1] is ...:
        _written(args[0], f"{path}[]", lines)
    elif origin is tuple:
        for n, arg in enumerate(args):
            _written(arg, f"{path}[{n}]", lines)
    elif origin is dict:
        _written(args[0], f"{path}{{key}}", lines)
        _written(args[1], f"{path}{{}}", lines)
    elif kind is NoneType:
        lines.add(f"{path}: nothing")
    elif is_dataclass(kind):
        _fields(kind, path, lines)
    else:
        lines.add(f"{path}: {LEAVES[kind]}")
