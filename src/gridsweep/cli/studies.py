"""Verbs that run no sweep: simulate, render, schema, doctor."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import click

from gridsweep.cli.arguments import Moment, Span
from gridsweep.cli.group import cli, json_option, load, print_json
from gridsweep.clusters import GATES, Gate


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

    sweep = load(spec)
    provider = open_trace(trace)
    starts = backtest.start_instants(provider.trace, every, start, end)
    with progress.counting("simulating", len(starts)) as tell:
        made = backtest.simulate(sweep, provider, starts=starts, policies=policies, tick=tick, tell=tell)
    if as_json:
        click.echo(codec.dumps(made, indent=1))
    else:
        terminal.simulation(made, provider)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write; an earlier rendering is replaced.",
)
@click.option("--tier", help="Only this tier's jobs.")
@click.option("--gate", type=click.Choice(GATES), help="Who holds work back (default: the spec's).")
@click.option("--namespace", is_flag=True, help="Render the namespace too.")
def render(spec: Path, folder: Path, tier: str | None, gate: Gate | None, namespace: bool) -> None:
    """Write the Kubernetes manifests of a sweep, for kubectl."""
    from gridsweep.render import manifest_files

    made = manifest_files.render(spec, folder, tier=tier, gate=gate, namespace=namespace)
    what = f"{made.jobs} RayJobs" if made.jobs else "the loop as a Deployment"
    click.echo(f"wrote {folder}: {what}; next: kubectl apply --server-side -k {folder}")


@cli.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from gridsweep.spec import json_schema

    print_json(json_schema())


@cli.command()
@click.argument("specs", type=click.Path(path_type=Path), nargs=-1, metavar="[SPEC]...")
@json_option
def doctor(specs: tuple[Path, ...], as_json: bool) -> None:
    """Look at this machine: what is installed, what can train, how energy will be known.

    With SPECs, their providers are asked for the grid too.
    """
    from dataclasses import asdict

    from gridsweep import doctor as doctor_
    from gridsweep.render import terminal

    findings = doctor_.examine(sweeps=[load(spec) for spec in specs])
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        terminal.doctor(findings)
