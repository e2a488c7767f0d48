"""Commands for the power grid: forecast, zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridsweep.cli.arguments import Moment, Span
from gridsweep.cli.group import cli, json_option, load, naming, print_json
from gridsweep.errors import SignalError, SpecError

if TYPE_CHECKING:
    from gridsweep.sweep.sweep import CarbonSource


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path), required=False)
@click.option("--provider", help="Provider of grid data, instead of a spec; `gridsweep zones` lists them.")
@click.option("--zone", help="Grid zone, as the provider names it.")
@click.option("--trace", help="Trace to read: a file, or solar-valley.")
@click.option("--duration", type=Span(), default="90m", show_default=True, help="Length of the clean windows to find.")
@click.option("--horizon", type=Span(), default="96h", show_default=True, help="Length of the forecast.")
@click.option("--at", type=Moment(), help="Time to take as now (traces only).")
@click.option("--png", type=click.Path(path_type=Path), help="Also draw the forecast to this file.")
@json_option
def forecast(
    spec: Path | None,
    provider: str | None,
    zone: str | None,
    trace: str | None,
    duration: timedelta,
    horizon: timedelta,
    at: datetime | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Show a grid zone's carbon intensity and best windows.

    Covers the present and the coming days, with uncertainty and sources. The zone comes from SPEC, from --provider with
    --zone, or from --trace.
    """
    from gridsweep.carbon.outlook import outlook
    from gridsweep.grid.registry import plugin, provider_for
    from gridsweep.render import outlook as pictures

    if spec is not None and (provider or zone or trace):
        raise click.UsageError("SPEC excludes --provider, --zone and --trace; give one or the other")
    if spec is not None:
        sweep = load(spec)
        carbon, at = sweep.carbon, at or (sweep.replay.start if sweep.replay else None)
    else:
        carbon = source_of(provider, zone, trace)
    if at is not None and plugin(carbon.provider).live:
        raise click.UsageError(f"{carbon.provider} reads live data only; --at needs a trace")
    now = at or datetime.now(UTC)
    made = outlook(provider_for(carbon).read(now), now, duration, horizon)
    if made.intensity is None and made.freshness == "none":
        raise SignalError(f"no grid data for {carbon.zone}: {made.why or 'nothing answered'}")
    if png is not None:
        pictures.png(made, png)
    if as_json:
        print_json(made)
    else:
        pictures.text(made)
        if png is not None:
            click.echo(f"wrote {png}")


def source_of(provider: str | None, zone: str | None, trace: str | None) -> CarbonSource:
    """Return the carbon source that the options name. Raise `SpecError` for a provider without a zone."""
    from gridsweep.grid.registry import plugin
    from gridsweep.sweep.sweep import CarbonSource

    if not provider or provider == "trace":
        return CarbonSource(file=trace or "solar-valley", zone=zone or "")
    with naming("--provider"):
        plugin(provider)
    if not zone:
        listed = f"name one with --zone; `gridsweep zones --provider {provider}` lists them"
        raise SpecError(f"{provider} needs a zone", where="--provider", remedy=listed)
    return CarbonSource(provider, zone, None)


@cli.command()
@click.argument("search", required=False)
@click.option("--provider", help="List only this provider's zones.")
@json_option
def zones(search: str | None, provider: str | None, as_json: bool) -> None:
    """List the grid zones of the installed providers.

    SEARCH matches part of an id or a name.
    """
    from gridsweep.grid.registry import names, plugin, zones_of
    from gridsweep.render import answers
    from gridsweep.render import outlook as pictures

    asked = [provider] if provider else list(names())
    with naming("--provider"):
        list(map(plugin, asked))
    found = {name: zones_of(name) for name in asked}
    wanted = (search or "").lower()
    rows = [
        {"provider": name, "zone": zone.id, "title": zone.title, "note": zone.note}
        for name, (zones, _) in found.items()
        for zone in zones
        if wanted in f"{zone.id} {zone.title}".lower()
    ]
    silent = {name: why for name, (_, why) in found.items() if why}
    if as_json:
        print_json(answers.Zones(tuple(answers.ZoneRow(**row) for row in rows), silent))
    else:
        pictures.zones(rows, silent)
