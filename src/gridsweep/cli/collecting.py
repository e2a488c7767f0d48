"""The command for a sweep that another component drives in a cluster: collect."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path

import click

from gridsweep.cli.arguments import Span
from gridsweep.cli.group import cli, json_option, load, notice, print_json
from gridsweep.sweep.clusters import GATES, Gate


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--gate", type=click.Choice(GATES), help="Gate that was rendered (default: as in the spec).")
@click.option("--store", type=click.Path(path_type=Path), help="Read the volume here, and ask no cluster.")
@click.option("--journal", type=click.Path(path_type=Path), help="With --store and gate none: the journal's volume.")
@click.option("--ended", is_flag=True, help="With --store: no worker is alive; one without a result is lost.")
@click.option("--settle", type=Span(), default="1m", show_default=True, help="Wait for the last files of gone workers.")
@json_option
def collect(
    spec: Path,
    folder: Path | None,
    gate: Gate | None,
    store: Path | None,
    journal: Path | None,
    ended: bool,
    settle: timedelta,
    as_json: bool,
) -> None:
    """Build the run folder of a sweep that kubectl applied, or bring it up to date.

    SPEC is the sweep.yaml that was rendered; FOLDER is runs/<sweep> by default. Under a gate, the journal is gathered
    from the volume and from RayJobs and pods. With gate none, FOLDER becomes a copy of the loop's own folder.
    """
    from gridsweep.render import collection
    from gridsweep.runs import clusters

    if (journal or ended) and store is None:
        raise click.UsageError("--journal and --ended need --store: they say what a cluster would")
    sweep = load(spec)
    place = folder or Path("runs") / sweep.name
    words = ["gridsweep", "collect", spec, *([folder] if folder else []), *(["--gate", gate] if gate else [])]
    words += [*(["--store", store] if store else []), *(["--journal", journal] if journal else [])]
    again = shlex.join(map(str, words))
    notice(quiet=as_json)(f"collecting {sweep.name} ...")
    made = clusters.collect(
        sweep, place, gate=gate, store=store, journal=journal, ended=ended, settle=settle, again=again
    )
    if as_json:
        print_json(made)
    else:
        collection.text(made)
