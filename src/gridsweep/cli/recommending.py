"""The command that designs a sweep: recommend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from gridsweep.cli.grid import source_of
from gridsweep.cli.group import cli, json_option, notice, print_json


@cli.command()
@click.argument("model")
@click.argument("dataset", metavar="DATA")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Budget: hours from submission to end.")
@click.option("--grams", type=click.FloatRange(min=0, min_open=True), help="Budget: g CO2eq at the grid's mean.")
@click.option("--provider", help="Provider of grid data; `gridsweep zones` lists them.")
@click.option("--zone", help="Grid zone, as the provider names it.")
@click.option("--trace", help="Trace of the grid: a file, or solar-valley (default).")
@click.option(
    "--to", type=click.Path(path_type=Path), default=Path("sweep.yaml"), show_default=True, help="File to write."
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@json_option
def recommend(
    model: str,
    dataset: str,
    hours: float | None,
    grams: float | None,
    provider: str | None,
    zone: str | None,
    trace: str | None,
    to: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a sweep.yaml for MODEL and DATA, sized by a budget.

    MODEL and DATA are Hugging Face ids, paths, or bundled names (tiny-qwen2, stdlib). Reads them as a worker would,
    trains nothing, and says why each value was chosen, where it comes from, and what is not known. A budget sizes the
    sweep once, before it starts; nothing holds a running sweep to it.
    """
    from gridsweep.render import recommended
    from gridsweep.runs import recommending

    if provider and provider != "trace" and trace:
        raise click.UsageError("--provider and --trace exclude each other; give one of them")
    carbon = source_of(provider, zone, trace)
    notice(quiet=as_json)("looking at the model, the data and this machine ...")
    made = recommending.recommend(
        model, dataset, to, carbon, datetime.now(UTC), hours=hours, grams=grams, overwrite=overwrite
    )
    if as_json:
        print_json(made)
    else:
        recommended.text(made)
