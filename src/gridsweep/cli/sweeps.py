"""Commands for one sweep: init, check, plan, run, status, explain, logs, report."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridsweep.cli.arguments import Moment
from gridsweep.cli.group import (
    cli,
    ending_with,
    folder_argument,
    folder_of,
    json_option,
    load,
    notice,
    one_of,
    placing,
    print_json,
    worker,
)
from gridsweep.errors import DEADLINE, INTERRUPTED, ExecutorError, GridsweepError, SignalError, SpecError, word

if TYPE_CHECKING:
    from gridsweep.records.looks import Look
    from gridsweep.sweep.sweep import Sweep


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("sweep.yaml"))
@json_option
def init(path: Path, as_json: bool) -> None:
    """Write a commented sweep.yaml that works offline."""
    from gridsweep.spec import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise GridsweepError(f"{path} already exists; name another file, or remove it first") from None
    except OSError as error:
        raise GridsweepError(f"cannot write {path}: {error.strerror}; name another file") from None
    if as_json:
        from gridsweep.render.answers import Written

        print_json(Written(str(path), next=f"gridsweep check {word(path)}"))
    else:
        here = word(path)
        click.echo(f"wrote {path}; next: gridsweep check {here}, gridsweep plan {here}, then gridsweep run {here}")


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@json_option
def check(spec: Path, as_json: bool) -> None:
    """Check a spec and list its experiments with their tiers."""
    from gridsweep.grid.registry import provider_for
    from gridsweep.policy.limits import useless_limits
    from gridsweep.schedule.capacity import check_deadline
    from gridsweep.sweep.search_space import near_duplicates

    sweep = load(spec)
    now = sweep.replay.start if sweep.replay else datetime.now(UTC)
    check_deadline(sweep, now)
    try:
        warnings = useless_limits(sweep, provider_for(sweep.carbon).read(now), now)
    except SignalError as error:
        warnings = [f"cannot read the grid: {error}"]
    warnings += [str(alike) for alike in near_duplicates([e.params for e in sweep.experiments], same_rank=True)]
    look = looking(spec, sweep, now, quiet=as_json)
    warnings += look.warnings if look is not None else ()
    if as_json:
        from gridsweep.render import answers

        print_json(answers.check(sweep, warnings, look))
        return
    from gridsweep.render import terminal

    terminal.check(sweep, warnings, look)


def looking(spec: Path, sweep: Sweep, now: datetime, *, quiet: bool) -> Look | None:
    """Return what can be seen of data and model. Raise `SpecError` if a worker would refuse the sweep."""
    from gridsweep.runs.looking import looked

    notice(quiet=quiet)("looking at the model and the data ...")
    look = looked(sweep, now, worker())
    if look is not None and look.error:
        with placing(spec):
            raise SpecError(look.error)
    return look


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--at", type=Moment(), help="Time of submission (default: now, or the start of the replay).")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the plan to this file as JSON.")
@click.option("--png", type=click.Path(path_type=Path), help="Also draw the plan to this file.")
@json_option
def plan(spec: Path, at: datetime | None, out: Path | None, png: Path | None, as_json: bool) -> None:
    """Plan a sweep on the forecast, before anything runs.

    Shows the start times, the expected saving, and its uncertainty.
    """
    from gridsweep.grid.registry import provider_for
    from gridsweep.render import documents
    from gridsweep.render import plan as pictures
    from gridsweep.schedule import capacity
    from gridsweep.simulation import plan as plans

    sweep = load(spec)
    now = at or (sweep.replay.start if sweep.replay else datetime.now(UTC))
    capacity.check_deadline(sweep, now)
    look = looking(spec, sweep, now, quiet=as_json)
    for warning in look.warnings if look is not None else ():
        notice(quiet=as_json)(f"warning: {warning}")
    made = plans.plan(sweep, provider_for(sweep.carbon), now)
    if out is not None:
        try:
            out.write_text(documents.text(made) + "\n", encoding="utf-8")
        except OSError as error:
            raise GridsweepError(f"cannot write {out}: {error.strerror}; name another file") from None
    if png is not None:
        pictures.png(made, png)
    if as_json:
        print_json(made)
    else:
        pictures.text(made)
        for path in filter(None, (out, png)):
            click.echo(f"wrote {path}")
    sys.exit(DEADLINE if made.late else 0)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of the run (default: runs/<sweep>).")
@click.option("--detach", is_flag=True, help="Run in the background and return.")
@json_option
def run(spec: Path, folder: Path | None, detach: bool, as_json: bool) -> None:
    """Run or resume a sweep; SPEC may be a run folder.

    Ctrl-C stops the workers at a checkpoint; the same command resumes the sweep. A second Ctrl-C exits at once: the
    workers keep running, and the next run adopts them.
    """
    from gridsweep.render import answers, failures, files, progress, terminal
    from gridsweep.runs import background
    from gridsweep.runs import run as runs

    sweep = None
    if spec.is_dir() and (spec / "state").is_dir():
        folder = folder or spec
    else:
        sweep = load(spec)
        folder = folder or Path("runs") / sweep.name
    if detach:
        pid = background.detach(spec, folder)
        if as_json:
            print_json(answers.Detached(folder, pid, next=f"gridsweep status --watch {folder}"))
        else:
            terminal.detached(pid, folder)
        return
    usual = spec if sweep is None else Path("runs") / sweep.name
    again = shlex.join(["gridsweep", "run", str(spec), *(() if folder == usual else ("--folder", str(folder)))])
    try:
        with placing(spec), progress.watching(quiet=as_json) as tell:
            done = runs.run(sweep, folder, tell=tell, command=worker(), noticed=notice(quiet=as_json))
    except KeyboardInterrupt:
        if as_json:
            print_json(failures.left_at_once(again))
        else:
            click.echo(f"\nexited at once; the workers keep running. Resume with: {again}", err=True)
        sys.exit(INTERRUPTED)
    paths = files.publish(done.folder, done.report)
    with ending_with(done.exit_code):
        if as_json:
            print_json(done.report)
        else:
            terminal.report(done.report, short=True)
            terminal.configuration(done.report, done.folder)
            terminal.ending(done.report, done.exit_code, paths, again)
    sys.exit(done.exit_code)


@cli.command()
@folder_argument
@click.option("--watch", is_flag=True, help="Refresh until the sweep ends.")
@json_option
def status(folder: Path | None, watch: bool, as_json: bool) -> None:
    """Show the status of a sweep."""
    from gridsweep.render import glance

    place = folder_of(folder)
    if as_json:
        from gridsweep.render import answers

        if watch:
            glance.ended(place)
        print_json(answers.status(place))
    else:
        glance.status(place, watch=watch)


@cli.command()
@click.argument("experiment")
@folder_argument
@json_option
def explain(experiment: str, folder: Path | None, as_json: bool) -> None:
    """Explain why an experiment waits, or why it started.

    For a waiting experiment, also shows its latest start. EXPERIMENT is an experiment id or its first characters.
    """
    from gridsweep.render import answers, terminal

    state = folder_of(folder).read()
    standing = one_of(state.standings, experiment)
    if as_json:
        print_json(answers.explanation(state, standing))
    else:
        terminal.explain(state, standing)


@cli.command()
@click.argument("experiment")
@folder_argument
@click.option("--follow", is_flag=True, help="Keep printing until the attempt ends.")
@json_option
def logs(experiment: str, folder: Path | None, follow: bool, as_json: bool) -> None:
    """Print the output of an experiment's latest attempt.

    The output is that of the worker, wherever it runs. EXPERIMENT is an experiment id or its first characters. With
    --follow, --json prints one document per line.
    """
    import time

    from gridsweep.executors.local import Local
    from gridsweep.executors.registry import executor_for
    from gridsweep.records.origins import origin_of
    from gridsweep.render import answers

    place = folder_of(folder)
    state = place.read()
    standing = one_of(state.standings, experiment)
    if not standing.attempts:
        raise GridsweepError(f"{standing.experiment.id} has not been started: {standing.why or 'it waits'}")
    here = origin_of(place.state) is not None  # what was collected is read as it was collected
    attempt, shown = standing.attempts[-1], 0
    executor = Local(place.store) if here else executor_for(state.sweep, place.store)
    while True:
        lines = list(executor.logs(attempt))
        if as_json and not follow:
            print_json(answers.Logs(standing.experiment.id, attempt, tuple(lines)))
            return
        for line in lines[shown:]:
            if as_json:
                print_json(answers.LogLine(standing.experiment.id, attempt, line), lines=True)
            else:
                click.echo(line)
        shown = len(lines)
        runs_on = not here and attempt in place.read().active
        if not follow or not runs_on:
            if not shown:
                from gridsweep.render import terminal

                click.echo(terminal.silence(standing.experiment.id, attempt, runs_on=runs_on), err=True)
            return
        time.sleep(1.0)


@cli.command()
@folder_argument
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--settle", "settled", is_flag=True, help="Read revised grid data and report both figures.")
def report(folder: Path | None, as_json: bool, markdown: bool, settled: bool) -> None:
    """Report results, energy and emissions of a sweep.

    Compares the sweep with running at once, and rewrites the HTML report.
    """
    from gridsweep.render import files, terminal
    from gridsweep.render import markdown as markdown_
    from gridsweep.runs import run as runs

    place = folder_of(folder)
    if settled:
        from gridsweep.runs.settling import settle

        made = settle(place.path)
    else:
        made = runs.report(place.path)
    if as_json:
        print_json(made)
    elif markdown:
        click.echo(markdown_.render(made))
    else:
        terminal.report(made)
        try:
            terminal.wrote(files.publish(place.path, made))
        except ExecutorError as error:  # the folder may belong to another user, or be mounted for reading
            click.echo(f"not written: {error.what}", err=True)
