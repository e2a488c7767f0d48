"""Commands for a folder that may be damaged: verify, repair."""

from __future__ import annotations

from pathlib import Path

import click

from gridsweep.cli.group import cli, folder_argument, folder_of, json_option, print_json
from gridsweep.errors import STATE_DAMAGED, word


@cli.command()
@folder_argument
@json_option
def verify(folder: Path | None, as_json: bool) -> None:
    """Check a run's journal row by row, and its adapters file by file.

    Exits with 7 if anything is damaged or missing; changes nothing.
    """
    from gridsweep.runs import mending

    place = folder_of(folder)
    found = mending.verify(place.path)
    if as_json:
        print_json(found)
    else:
        old = found.rows - found.chained
        unchained = f"; {old} of before 0.2.0 hold no digest themselves" if old > 0 else ""
        click.echo(f"journal: {found.rows} of {found.stored} events are whole{unchained}")
        click.echo(f"adapters: {found.adapters} finished")
        for fault in found.faults:
            click.echo(f"damaged: {fault}", err=True)
        journal = any("journal" in fault for fault in found.faults)
        said = f"next: gridsweep repair {word(place.path)} --dry-run" if journal else ""
        click.echo(said or ("nothing is damaged" if not found.faults else "restore what is named from a backup"))
    if found.faults:
        raise SystemExit(STATE_DAMAGED)


@cli.command()
@folder_argument
@click.option("--dry-run", is_flag=True, help="Say what would be kept and lost; change nothing.")
@json_option
def repair(folder: Path | None, dry_run: bool, as_json: bool) -> None:
    """Make a new journal of the events before the first damage.

    The old journal stays beside it. Work after the damage that is in the store is found again, or done again.
    """
    from gridsweep.runs import mending

    place = folder_of(folder)
    made = mending.repair(place.path, dry_run=dry_run)
    if as_json:
        print_json(made)
        return
    for fault in made.faults:
        click.echo(f"damaged: {fault}", err=True)
    if not made.faults:
        click.echo("nothing to repair: the journal is whole")
        return
    until = f", up to {made.last_at:%Y-%m-%d %H:%M} UTC" if made.last_at else ""
    word_ = "would keep" if dry_run else "kept"
    click.echo(f"{word_} the first {made.kept} events{until}; {'would lose' if dry_run else 'lost'} {made.lost}")
    if made.aside:
        click.echo(f"the old journal is {made.aside}; next: gridsweep verify {word(place.path)}, then gridsweep run")
