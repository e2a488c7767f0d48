"""The command line. A verb and the function it calls share a name; heavy imports wait until a verb needs them."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridsweep.arguments import Moment, Span
from gridsweep.errors import DEADLINE, EXIT_CODES, INTERRUPTED, USAGE, GridsweepError

if TYPE_CHECKING:
    from gridsweep.sweep import Sweep

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
folder_argument = click.argument("folder", type=click.Path(path_type=Path), required=False)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gridsweep")
def cli() -> None:
    """Hyperparameter sweeps of LoRA fine-tuning that watch the power grid."""


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("sweep.yaml"))
def init(path: Path) -> None:
    """Write a commented sweep.yaml that works offline."""
    from gridsweep.spec import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise GridsweepError(f"{path} exists already; name another file, or remove it first") from None
    except OSError as error:
        raise GridsweepError(f"cannot write {path}: {error.strerror}; name another file") from None
    click.echo(f"wrote {path}; next: gridsweep check {path}, then gridsweep plan {path}")


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@json_option
def check(spec: Path, as_json: bool) -> None:
    """Check a spec and list its experiments with their tiers."""
    sweep = _load(spec)
    if as_json:
        _print_json({"experiments": [_experiment(sweep, e.id) for e in sweep.experiments]})
        return
    from gridsweep.render import terminal

    terminal.check(sweep)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--at", type=Moment(), help="Plan as if submitted then (default: now, or the replay's start).")
@json_option
def plan(spec: Path, at: datetime | None, as_json: bool) -> None:
    """Rehearse a sweep on the forecast, before anything runs."""
    from gridsweep import codec, rehearse, runs

    sweep = _load(spec)
    now = at or (sweep.replay.start if sweep.replay else datetime.now(UTC))
    rehearse.check_deadline(sweep, now)
    made = rehearse.plan(sweep, runs.provider_for(sweep), now)
    if as_json:
        click.echo(codec.dumps(made, indent=1))
    else:
        from gridsweep.render import terminal

        terminal.plan(made)
    sys.exit(DEADLINE if made.late else 0)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), help="Where to keep the run (default: runs/<sweep>).")
@click.option("--detach", is_flag=True, help="Run in the background and return.")
@json_option
def run(spec: Path, folder: Path | None, detach: bool, as_json: bool) -> None:
    """Run a sweep, or go on with it; SPEC may be the folder of a run.

    Ctrl-C stops the work at a checkpoint; the same command goes on. A second Ctrl-C leaves at once: the workers go on
    by themselves, and the next run adopts them.
    """
    from gridsweep import codec, runs
    from gridsweep.render import files, progress, terminal

    sweep = None
    if spec.is_dir() and (spec / "state").is_dir():
        folder = folder or spec
    else:
        sweep = _load(spec)
        folder = folder or Path("runs") / sweep.name
    if detach:
        terminal.detached(runs.detach(spec, folder), folder)
        return
    again = f"gridsweep run {spec}" + (f" --folder {folder}" if folder != Path("runs") / folder.name else "")
    try:
        with progress.watching(quiet=as_json) as tell:
            done = runs.run(sweep, folder, tell=tell, command=_worker())
    except KeyboardInterrupt:
        click.echo(f"\nleft at once; the workers go on by themselves. Go on with: {again}", err=True)
        sys.exit(INTERRUPTED)
    paths = files.publish(done.folder, done.report)
    if as_json:
        click.echo(codec.dumps(done.report, indent=1))
    else:
        terminal.report(done.report, short=True)
        terminal.ending(done.report, done.exit_code, paths, again)
    sys.exit(done.exit_code)


@cli.command()
@folder_argument
@click.option("--watch", is_flag=True, help="Keep showing it until the sweep ends.")
@json_option
def status(folder: Path | None, watch: bool, as_json: bool) -> None:
    """Show where a sweep stands."""
    from gridsweep.render import terminal

    place = _folder(folder)
    if as_json:
        _print_json(terminal.status_json(place.read(), place.driver()))
    else:
        terminal.status(place, watch=watch)


@cli.command()
@click.argument("experiment")
@folder_argument
@json_option
def explain(experiment: str, folder: Path | None, as_json: bool) -> None:
    """Say why an experiment waits (until when at the latest), or why it started when it did.

    EXPERIMENT is an id, or the beginning of one.
    """
    from gridsweep.render import terminal

    state = _folder(folder).read()
    standing = _one(state.standings, experiment)
    if as_json:
        _print_json(terminal.explain_json(state, standing))
    else:
        terminal.explain(state, standing)


@cli.command()
@folder_argument
def stop(folder: Path | None) -> None:
    """Stop a sweep at its checkpoints; `run` goes on with it."""
    from gridsweep import runs

    place = _folder(folder)
    state = runs.stop(place.path, _worker())
    left = state.count("waiting")
    click.echo(
        f"{place.path} is stopped; {left} experiments remain: gridsweep run {place.path}"
        if left
        else "nothing is left to stop"
    )


@cli.command()
@folder_argument
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def report(folder: Path | None, as_json: bool, markdown: bool) -> None:
    """Report what a sweep found and cost, and what running at once would have cost; write the HTML report anew."""
    from gridsweep import codec, runs
    from gridsweep.render import files, terminal
    from gridsweep.render import markdown as markdown_

    place = _folder(folder)
    made = runs.report(place.path)
    if as_json:
        click.echo(codec.dumps(made, indent=1))
    elif markdown:
        click.echo(markdown_.render(made))
    else:
        paths = files.publish(place.path, made)
        terminal.report(made)
        terminal.wrote(paths)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--trace", required=True, help="A CSV file `timestamp,carbon_intensity`, or `solar-valley`.")
@click.option("--policy", "policies", multiple=True, help="A policy to try; may be given several times.")
@click.option("--every", type=Span(), default="6h", show_default=True, help="Between start instants.")
@click.option("--from", "start", type=Moment(), help="First start (default: 28 days into the trace).")
@click.option("--to", "end", type=Moment(), help="Starts lie before it (default: 9 days before the trace's end).")
@click.option("--tick", type=Span(), help="Between looks at the grid (default: the spec's).")
@json_option
def simulate(
    spec: Path,
    trace: str,
    policies: tuple[str, ...],
    every: timedelta,
    start: datetime | None,
    end: datetime | None,
    tick: timedelta | None,
    as_json: bool,
) -> None:
    """Back-test policies on a recorded trace: the spec's estimates, from many start instants."""
    from gridsweep import backtest, codec
    from gridsweep.providers.trace import open_trace
    from gridsweep.render import progress, terminal

    sweep = _load(spec)
    provider = open_trace(trace)
    starts = backtest.start_instants(provider.trace, every, start, end)
    with progress.counting("simulating", len(starts)) as tell:
        made = backtest.simulate(sweep, provider, starts=starts, policies=policies, tick=tick, tell=tell)
    if as_json:
        click.echo(codec.dumps(made, indent=1))
    else:
        terminal.simulation(made, provider)


@cli.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from gridsweep.spec import json_schema

    _print_json(json_schema())


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look at this machine: what is installed, what can train, how energy will be known."""
    from dataclasses import asdict

    from gridsweep import doctor as doctor_
    from gridsweep.render import terminal

    findings = doctor_.examine()
    if as_json:
        _print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        terminal.doctor(findings)


def _worker() -> list[str]:
    """The command that starts a worker; GRIDSWEEP_WORKER names another module, such as gridsweep.testing."""
    return [sys.executable, "-m", os.environ.get("GRIDSWEEP_WORKER", "gridsweep.train")]


def _load(path: Path) -> Sweep:
    from gridsweep.sweep import Sweep

    return Sweep.load(path)


def _experiment(sweep: Sweep, id: str) -> dict[str, object]:
    experiment = sweep.experiment(id)
    params = experiment.params
    return {
        "id": id,
        "r": params.r,
        "alpha": params.alpha,
        "lr": params.lr,
        "dropout": params.dropout,
        "tier": experiment.tier,
        "reason": experiment.reason,
    }


def _folder(folder: Path | None) -> Any:
    """The run folder named, or the newest below runs/."""
    from gridsweep.runs import RunFolder

    if folder is not None:
        return RunFolder(folder)
    found = [path.parent.parent for path in Path("runs").glob("*/state/journal.db")]
    if not found:
        raise GridsweepError("there is no run below ./runs; name a run's folder")
    return RunFolder(max(found, key=lambda path: (path / "state" / "journal.db").stat().st_mtime))


def _one(standings: dict[str, Any], beginning: str) -> Any:
    import difflib

    if beginning in standings:
        return standings[beginning]
    matches = [id for id in standings if id.startswith(beginning)]
    if len(matches) == 1:
        return standings[matches[0]]
    slugs = {id.rpartition("-")[0]: id for id in standings}
    near = [slugs[slug] for slug in difflib.get_close_matches(beginning, slugs, n=3, cutoff=0.4)]
    if matches:
        raise GridsweepError(f"{beginning!r} could be any of {', '.join(matches[:5])}; write more of it")
    raise GridsweepError(
        f"no experiment begins with {beginning!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
    )


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, default=str))


def main() -> None:
    """Run the command line; every `GridsweepError` becomes its message and its exit code."""
    try:
        cli.main(standalone_mode=False)
    except GridsweepError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
