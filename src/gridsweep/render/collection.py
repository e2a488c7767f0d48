"""What `collect` found, as text."""

from __future__ import annotations

import click

from gridsweep.runs.collecting import Collection
from gridsweep.sweep.counting import counted


def text(made: Collection) -> None:
    """Print what was collected, what could not be had, and the next command."""
    counts = ", ".join(f"{count} {status}" for status, count in made.counts.items())
    new = counted(made.events, "new event") if made.events else "nothing new"
    how = "copied" if made.kind == "copy" else "collected"
    click.echo(f"{how} {made.sweep} from {made.source} into {made.folder}: {new}")
    click.echo(f"{counts}; {counted(made.attempts, 'attempt')}")
    for what in made.unknown:
        click.echo(f"unknown: {what}")
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"next: {made.next}")
