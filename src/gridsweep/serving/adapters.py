"""The adapters of a sweep: list them, find the best one, select and verify one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.recommendation import Recommendation, recommend
from gridsweep.accounting.report import Report
from gridsweep.errors import AdapterError, word
from gridsweep.records.files import MANIFEST, verify
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import summarize
from gridsweep.serving.servable import CONFIG, FILES, plain_files, shown
from gridsweep.state.state import State
from gridsweep.sweep.counting import remaining
from gridsweep.sweep.identity import ambiguous


@dataclass(frozen=True, slots=True)
class Adapter:
    """A finished adapter. `emissions_g` is None if part of its energy was used at unknown intensity.

    `tied` marks a statistical tie with the best; `size_bytes` counts all files of the folder.
    """

    experiment: str
    place: int
    loss: float
    tied: bool
    emissions_g: float | None
    energy_kwh: float
    size_bytes: int
    path: Path


def models(folder: str | Path) -> list[Adapter]:
    """Return the finished adapters of the sweep in a folder, best first. Raise `SpecError` if there is no sweep."""
    place = RunFolder(Path(folder))
    return _listed(place, summarize(place.read()))


def named(folder: str | Path, beginnings: Sequence[str]) -> list[Adapter]:
    """Return the adapters whose ids start with these. Raise `AdapterError` where not exactly one does."""
    place = RunFolder(Path(folder))
    report = summarize(place.read())
    listed = _listed(place, report)
    return [one(listed, beginning, report.rows) for beginning in beginnings]


def best(folder: str | Path) -> tuple[Adapter, list[Adapter]]:
    """Return the best adapter and the adapters tied with it. Raise `AdapterError` while there is none."""
    place = RunFolder(Path(folder))
    report = summarize(place.read())
    listed = _listed(place, report)
    if not listed:
        raise AdapterError(
            f"{folder} holds no finished adapter yet; `gridsweep status {word(folder)}` shows the progress"
        )
    winner = listed[0]
    if report.best and winner.experiment != report.best.experiment:
        raise AdapterError(
            f"the best is {report.best.experiment}, but its adapter is not in {place.store / 'experiments'}; "
            f"restore it, or run `gridsweep run {word(folder)}`, or name another of {_names(listed)}"
        )
    return winner, [adapter for adapter in listed[1:] if adapter.tied]


def recommended(folder: str | Path) -> tuple[Recommendation, Path | None]:
    """Return the configuration that a sweep recommends so far, and the folder of its adapter if it exists.

    Raise `SpecError` if there is no sweep, `AdapterError` while no experiment has finished training.
    """
    place = RunFolder(Path(folder))
    state = place.read()
    report = summarize(state)
    if report.best is None:
        raise AdapterError(_nothing_yet(folder, state))
    path = place.store / "experiments" / report.best.experiment / "adapter"
    made = recommend(state, report)
    assert made is not None, "a best experiment has a loss"
    made = _placed(made, path)
    return made, path if path.is_dir() else None


def _nothing_yet(folder: str | Path, state: State) -> str:
    if state.left:
        return (
            f"{folder} has no finished experiment yet, {remaining(state.left)}; `gridsweep status {word(folder)}` "
            f"shows their progress, `gridsweep run {word(folder)}` resumes the sweep"
        )
    count, cancelled = len(state.standings), state.count("cancelled")
    if cancelled:
        ended = f"{cancelled} of {count} experiments of {folder} were cancelled, and none of the others has a loss"
        return f"{ended}; `gridsweep report {word(folder)}` shows the reasons"
    return f"all {count} experiments of {folder} failed; `gridsweep report {word(folder)}` shows the reasons"


def _placed(made: Recommendation, adapter: Path) -> Recommendation:
    """Return a recommendation with the layers and modules that its adapter's configuration names, if it can be read."""
    try:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        layers, modules = config["layers_to_transform"], config["target_modules"]
        excluded = config.get("exclude_modules") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return made
    whole = isinstance(layers, list) and all(isinstance(layer, int) for layer in layers)
    named = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in (modules, excluded))
    return replace(
        made,
        layers=tuple(layers) if whole else None,
        modules=tuple(modules) if named else None,
        excluded=tuple(excluded) if named else None,
    )


def one(adapters: list[Adapter], beginning: str, rows: Sequence[Row] = ()) -> Adapter:
    """Return the adapter whose experiment id starts with `beginning`.

    Raise `AdapterError` unless exactly one does; if it is an experiment of `rows` without an adapter, the error says
    how the experiment stands.
    """
    matches = [a for a in adapters if a.experiment.startswith(beginning)] if beginning else []
    exact = [a for a in matches if a.experiment == beginning]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    if matches:
        names = [adapter.experiment for adapter in matches]
        raise AdapterError(ambiguous(beginning, names, [adapter.experiment for adapter in adapters]))
    without = [row for row in rows if beginning and row.experiment.startswith(beginning) and row.status != "done"]
    if len(without) == 1 or (without := [row for row in without if row.experiment == beginning]):
        raise AdapterError(f"{without[0].experiment} has no adapter: {_stands(without[0])}; {_finished(adapters)}")
    ids = [adapter.experiment for adapter in adapters]
    near = difflib.get_close_matches(beginning[:60], ids, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else _finished(adapters)
    raise AdapterError(f"no finished adapter's name starts with {shown(beginning)}; {hint}")


def sealed(adapter: Adapter) -> None:
    """Raise `AdapterError` unless the folder holds exactly the plain adapter files that its manifest lists."""
    whose = f"the adapter of {adapter.experiment} in {adapter.path}"
    try:
        plain_files(adapter.path)
        listed = set(json.loads((adapter.path / MANIFEST).read_text(encoding="utf-8"))["files"])
    except AdapterError as error:
        raise AdapterError(f"{whose}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise AdapterError(f"{whose} has no readable manifest; train it again, or copy it again") from None
    there = {path.name for path in adapter.path.iterdir()} - {MANIFEST}
    if not listed <= FILES or there != listed or not verify(adapter.path):
        raise AdapterError(f"{whose} was changed after training: its files differ from its manifest; copy it again")


def _listed(place: RunFolder, report: Report) -> list[Adapter]:
    found = []
    for row in report.rows:
        path = place.store / "experiments" / row.experiment / "adapter"
        if row.place is None or row.loss is None or not path.is_dir():
            continue
        size = sum(file.lstat().st_size for file in path.iterdir())
        grams = None if row.unknown_kwh else row.emissions_g
        found.append(Adapter(row.experiment, row.place, row.loss, row.tied, grams, row.energy_kwh, size, path))
    return found


def _stands(row: Row) -> str:
    """Return why an experiment has no adapter: `stopped at step 9 of 35`, `waiting`."""
    told = row.reason.partition(": ")[0] if row.status == "stopped" else row.reason
    if not told:
        return row.status
    return told if told.startswith(row.status) else f"{row.status}: {told}"


def _finished(adapters: list[Adapter]) -> str:
    return f"finished adapters: {_names(adapters)}"


def _names(adapters: list[Adapter]) -> str:
    ids = [adapter.experiment for adapter in adapters]
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "none yet"
