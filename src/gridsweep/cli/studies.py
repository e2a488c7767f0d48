"""Commands that run no sweep: simulate, render, schema, doctor."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import click

from gridsweep.cli.arguments import Moment, Span
from gridsweep.cli.group import cli, json_option, load, naming, placing, print_json
from gridsweep.errors import EXECUTOR, word
from gridsweep.sweep.clusters import GATES, Gate


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--trace", help="Trace to replay: a file, or `solar-valley` (default: the trace in the spec).")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME[:OPTION[=VALUE],...]",
    help="Policy to test, such as threshold or planned:min_saving=0; repeat for several.",
)
@click.option(
    "--forecast",
    default="history",
    show_default=True,
    metavar="history|perfect|recorded:FILE",
    help="Forecast given to policies; a FILE with columns `issued,timestamp,forecast,actual` replaces --trace.",
)
@click.option("--devices", type=click.IntRange(min=1), help="Number of devices, each like the first in the spec.")
@click.option("--finish-by", type=Span(), help="Deadline for the whole sweep; replaces the tiers' start deadlines.")
@click.option("--idle-power", type=click.FloatRange(min=0), metavar="WATTS", help="Idle power of a device.")
@click.option(
    "--lengths",
    type=click.FloatRange(0, 3),
    default=0.0,
    metavar="SPREAD",
    help="Relative spread of real durations around the estimate: 0.5 for about half.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="SPEC",
    help="Baseline: run this sweep at once (default: the same sweep).",
)
@click.option("--every", type=Span(), default="6h", show_default=True, help="Interval between start times.")
@click.option("--from", "start", type=Moment(), help="First start time (default: 28 days into the trace).")
@click.option("--to", "end", type=Moment(), help="End of the start times (default: 9 days before the trace ends).")
@click.option("--tick", type=Span(), help="Interval between readings of the grid (default: as in the spec).")
@click.option("--bound/--no-bound", "bounds", default=True, help="Also compute the largest achievable saving.")
@click.option("--png", type=click.Path(path_type=Path), help="Also write a plot of saving against makespan.")
@json_option
def simulate(
    spec: Path,
    trace: str | None,
    policies: tuple[str, ...],
    forecast: str,
    devices: int | None,
    finish_by: timedelta | None,
    idle_power: float | None,
    lengths: float,
    against: Path | None,
    every: timedelta,
    start: datetime | None,
    end: datetime | None,
    tick: timedelta | None,
    bounds: bool,
    png: Path | None,
    as_json: bool,
) -> None:
    """Backtest policies on a recorded trace.

    Simulates the sweep with the spec's estimates, from many start times.
    """
    from gridsweep.grid import recorded_forecasts as recorded
    from gridsweep.render import progress, simulation
    from gridsweep.simulation import backtest
    from gridsweep.simulation.conditions import Conditions

    sweep = load(spec)
    with naming("--forecast"):
        provider = recorded.open_replay(trace, forecast, sweep.carbon)
    starts = backtest.start_instants(provider.trace, every, start, end)
    with progress.counting("simulating", len(starts)) as tell:
        conditions = Conditions(
            policies=policies, tick=tick, forecast=forecast, devices=devices, finish_by=finish_by,
            idle_power_w=idle_power, lengths=lengths, bounds=bounds,
            against=None if against is None else load(against),
        )  # fmt: skip
        with naming("--policy"):
            conditions.tried(sweep)
        made = backtest.simulate(sweep, provider, starts, conditions, tell)
    if png is not None:
        simulation.png(made, png, f"{sweep.name}, {provider.provenance.title}, {made.starts} starts")
    if as_json:
        print_json(made)
    else:
        simulation.text(made, provider.provenance)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write; earlier gridsweep manifests there are replaced.",
)
@click.option("--tier", help="Write only the jobs of this tier.")
@click.option("--gate", type=click.Choice(GATES), help="Component that holds jobs back (default: as in the spec).")
@click.option("--queue", help="Kueue's local queue, with --gate kueue (default: as in the spec).")
@click.option("--namespace", is_flag=True, help="Also write the namespace.")
@click.option("--role", is_flag=True, help="Also write the Role of a user who runs sweeps from his own machine.")
@json_option
def render(
    spec: Path,
    folder: Path,
    tier: str | None,
    gate: Gate | None,
    queue: str | None,
    namespace: bool,
    role: bool,
    as_json: bool,
) -> None:
    """Write the Kubernetes manifests of a sweep for kubectl."""
    from gridsweep.render import manifest_files

    with placing(spec):
        made = manifest_files.render(spec, folder, tier=tier, gate=gate, queue=queue, namespace=namespace, role=role)
    following = " && ".join(f"kubectl apply --server-side -k {word(part)}" for part in (folder / "base", folder))
    if as_json:
        from gridsweep.render.answers import Rendered

        print_json(Rendered(folder, made.jobs, following))
        return
    what = f"{made.jobs} RayJobs" if made.jobs else "the loop as a Job"
    click.echo(f"wrote {folder}: {what}; next: {following}")


@cli.command()
@click.option("--of", "verb", metavar="VERB", help="Print the schema of this command's --json output, or of `error`.")
@json_option
def schema(verb: str | None, as_json: bool) -> None:
    """Print the JSON schema of sweep.yaml for editors."""
    from gridsweep.spec import json_schema

    made = json_schema()
    if verb is not None:
        from gridsweep.render import documents
        from gridsweep.render.kinds import KINDS

        if verb not in KINDS:
            raise click.BadOptionUsage("--of", f"no schema for {verb!r}; choose from {', '.join(KINDS)}")
        made = documents.schema(KINDS[verb], verb)
    print_json({"schema_version": 1} | made if as_json else made)


@cli.command()
@click.argument("specs", type=click.Path(path_type=Path), nargs=-1, metavar="[SPEC]...")
@click.option("--train", is_flag=True, help="Measure the fastest way to train the SPECs' models here (or tiny-qwen2).")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Measuring time per model.",
)
@click.option("--kubernetes", is_flag=True, help="Check the cluster of the SPECs instead of this machine.")
@json_option
def doctor(specs: tuple[Path, ...], train: bool, seconds: float, kubernetes: bool, as_json: bool) -> None:
    """Check this machine: packages, devices, energy, disk.

    With SPECs, also reads the grid from their providers. --train stores its results in devices/ in the cache folder.
    --kubernetes asks the cluster: RayJobs, rights, claim, RuntimeClass, Secrets, quotas, queue, and a dry run of every
    object that `render` writes; exit code 5 if something is missing.
    """

    from gridsweep import doctor as machine
    from gridsweep.render import terminal

    if kubernetes and (train or not specs):
        raise click.UsageError("--kubernetes takes SPECs, and no --train")
    findings = [] if kubernetes else machine.examine(sweeps=[load(spec) for spec in specs])
    for spec in specs if kubernetes else ():
        with placing(spec):
            findings += machine.of_cluster(spec)
    made = []
    for subject in [str(spec) for spec in specs] or [machine.DEFAULT_MODEL]:
        if train:
            click.echo(f"measuring training of {subject} for about {seconds:.0f} s ...", err=True)
            made.append(machine.probe(subject, seconds))
            findings += machine.findings(made[-1])
    if as_json:
        from gridsweep.render.examination import Examination, probed

        print_json(Examination(tuple(findings), tuple(map(probed, made))))
    else:
        terminal.doctor(findings)
    if kubernetes and any(finding.state == "missing" for finding in findings):
        raise SystemExit(EXECUTOR)
