"""Commands that ask something of a sweep: stop, pause, resume, cancel, hold, release, add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gridsweep.cli.arguments import Moment, Span
from gridsweep.cli.group import cli, folder_argument, folder_of, json_option, load, one_of, placing, print_json, worker
from gridsweep.errors import SpecError, word
from gridsweep.sweep.counting import counted, remaining

if TYPE_CHECKING:
    from gridsweep.records.requests import Request
    from gridsweep.runs.asking import Answer
    from gridsweep.runs.folder import RunFolder
    from gridsweep.state.wishes import Wish

F = TypeVar("F", bound=Callable[..., None])
PART = 100
"""The most experiments added by one request."""


def experiments_argument(command: F) -> F:
    """Take experiments, by id or first characters, and among them the run folder, if one is named."""
    return click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]... [FOLDER]")(command)


@cli.command()
@folder_argument
@json_option
def stop(folder: Path | None, as_json: bool) -> None:
    """Stop a sweep at its checkpoints; `run` resumes it."""
    from gridsweep.runs import asking

    place = folder_of(folder)
    state = asking.stop(place.path, worker())
    left = state.left
    if as_json:
        from gridsweep.render.answers import Stopped

        print_json(Stopped(place.path, left, next=f"gridsweep run {word(place.path)}" if left else None))
        return
    click.echo(
        f"{place.path} is stopped; {remaining(left)}; resume with: gridsweep run {word(place.path)}"
        if left
        else "nothing is left to stop"
    )


@cli.command()
@experiments_argument
@json_option
def pause(experiments: tuple[str, ...], as_json: bool) -> None:
    """Pause a sweep, or some experiments: workers save and stop, and nothing starts until `resume`.

    The run goes on and waits; `stop` ends it instead.
    """
    _asked("pause", experiments, as_json)


@cli.command()
@experiments_argument
@click.option("--now", "soon", is_flag=True, help="Start once a device is free, whatever the grid.")
@json_option
def resume(experiments: tuple[str, ...], soon: bool, as_json: bool) -> None:
    """End a pause. Without experiments, of the whole sweep and of each experiment."""
    _asked("resume", experiments, as_json, soon=soon)


@cli.command()
@experiments_argument
@json_option
def cancel(experiments: tuple[str, ...], as_json: bool) -> None:
    """End experiments for good; one that runs saves and stops, and the others of its pack go on."""
    _asked("cancel", experiments, as_json)


@cli.command()
@experiments_argument
@click.option("--until", type=Moment(), help="Time at which the hold ends, by the sweep's clock.")
@click.option("--for", "span", type=Span(), help="How long the hold lasts, by the sweep's clock.")
@json_option
def hold(experiments: tuple[str, ...], until: datetime | None, span: timedelta | None, as_json: bool) -> None:
    """Keep a sweep, or some experiments, from starting; what runs goes on to its end or rung.

    Without --until or --for, until `release`.
    """
    if until is not None and span is not None:
        raise click.UsageError("--until and --for name the same time; give one of them")
    _asked("hold", experiments, as_json, until=until, span=span)


@cli.command()
@experiments_argument
@click.option("--now", "soon", is_flag=True, help="Start once a device is free, whatever the grid.")
@json_option
def release(experiments: tuple[str, ...], soon: bool, as_json: bool) -> None:
    """End a hold. Without experiments, of the whole sweep and of each experiment.

    With --now, also starts work that only waits for a cleaner grid.
    """
    _asked("release", experiments, as_json, soon=soon)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@folder_argument
@json_option
def add(spec: Path, folder: Path | None, as_json: bool) -> None:
    """Add the experiments that SPEC has and a sweep has not, and take over the keys that may change.

    FOLDER is the run folder (default: runs/<sweep>). Experiments that SPEC does not have stay.
    """
    from gridsweep.runs import asking

    sweep = load(spec)
    place = folder_of(folder or Path("runs") / sweep.name)
    with placing(spec):
        request, notes = asking.to_add(place.read(), sweep)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    parts = [request.added[i : i + PART] for i in range(0, len(request.added), PART)] or [()]
    answers = [asking.ask(place.path, replace(request, added=part)) for part in parts]
    _tell(answers, request.what, place, (), as_json, tuple(e.id for e in request.added))


def _asked(
    what: Wish,
    named: Sequence[str],
    as_json: bool,
    until: datetime | None = None,
    span: timedelta | None = None,
    *,
    soon: bool = False,
) -> None:
    """Leave a request for the named experiments, and tell its answer."""
    from gridsweep.records.requests import Request
    from gridsweep.runs import asking

    place, beginnings = _parted(named)
    state = place.read()
    ids = tuple(dict.fromkeys(one_of(state.standings, beginning).experiment.id for beginning in beginnings))
    if span is not None:
        until = (datetime.now(UTC) if not state.sweep.replay else state.now or state.submitted_at) + span
    request: Request = Request(what, datetime.now(UTC), ids, until, soon)
    _tell([asking.ask(place.path, request)], what, place, ids, as_json)


def _parted(named: Sequence[str]) -> tuple[RunFolder, list[str]]:
    """Return the run folder among the arguments, or the newest one, and the others."""
    folders = [name for name in named if (Path(name) / "state").is_dir()]
    if len(folders) > 1:
        raise SpecError(f"{folders[0]} and {folders[1]} are both run folders; name one of them")
    return folder_of(Path(folders[0]) if folders else None), [name for name in named if name not in folders]


def _tell(
    answers: Sequence[Answer],
    what: Wish,
    place: RunFolder,
    ids: Sequence[str],
    as_json: bool,
    added: Sequence[str] = (),
) -> None:
    """Print what became of a request, which may have had several parts."""
    from gridsweep.render.answers import Told

    changes = tuple(line for answer in answers if answer.asked for line in answer.asked.changes)
    waits = [answer for answer in answers if answer.answer == "waiting"]
    driven = all(answer.driven for answer in answers)
    then = None if driven else f"gridsweep run {word(place.path)}"
    if as_json:
        names = tuple(answer.id for answer in answers)
        became = waits[0].answer if waits else "taken"
        print_json(Told(place.path, names, what, tuple(ids), became, tuple(added), changes, then))
        return
    whom = ", ".join(ids) or place.path
    if waits:
        why = "the run is busy, and takes it later" if driven else f"no run drives it; the next one takes it: {then}"
        click.echo(f"{what} {whom}: asked; {why}")
        return
    for change in changes:
        click.echo(f"changed: {change}")
    if what == "add":
        click.echo(f"{counted(len(added), 'experiment')} added to {place.path}" if added else "no experiment is new")
    else:
        click.echo(f"{what} {whom}: done")
