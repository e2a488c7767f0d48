"""The accounting of a report as pairs of item and text, the same in every format."""

from __future__ import annotations

from gridsweep.accounting.report import Report
from gridsweep.render import promises, wording
from gridsweep.render.condensed import LATE, WHERE
from gridsweep.render.figures import UNKNOWN, energy, grams, percent


def accounting(report: Report) -> list[tuple[str, str]]:
    """Return the accounting as pairs of item and text."""
    total = sum(report.energy_sources.values())
    sources = "; ".join(
        f"{name} {energy(kwh)} ({percent(kwh / total)})" if total else name
        for name, kwh in sorted(report.energy_sources.items(), key=lambda item: -item[1])
    )
    emitted_g, unknown = grams(report.emissions_g), energy(report.unknown_kwh)
    wasted = _spent(report.wasted_kwh, report.wasted_g, "in attempts, or parts of them, that no result kept")
    again = _spent(report.reloaded_kwh, report.reloaded_g, "before the next step of interrupted stints")
    idle = _spent(report.idle_kwh, report.idle_g, "while devices waited")
    ended = report.ended
    part = f"; {grams(ended.emissions_g)} of it in the {ended.experiments} experiments that have ended" if ended else ""
    part = part if ended and ended.experiments < len(report.rows) else ""
    found = [
        ("Emissions", f"{emitted_g} CO2eq, location-based: energy times intensity over every attempt{part}"),
        ("Energy", f"{energy(report.energy_kwh)} in total"),
        ("Energy sources", sources or "no energy measured yet"),
        ("Wasted", wasted or "none: all work was kept"),
        *([("Loading again", again)] if again else []),
        ("Idle", idle or "none: the spec states no idle power"),
        ("Unknown", f"{unknown} used at unknown intensity" if report.unknown_kwh else "none"),
        ("Grid", f"{report.zone}: {report.source or 'not read yet'}"),
        ("Quality of the grid data", _qualities(report) or "not read yet"),
        ("Scope of a gram", report.meaning or "not read yet"),
    ]
    found += [("Signal outage", text) for text in outages(report)]
    mean = wording.summed(report).mean_intensity
    if mean is not None:
        met = f"{mean:.0f} gCO2eq/kWh on average"
        if report.immediate_intensity is not None:
            met += f", {report.immediate_intensity:.0f} when run at once"
        found.append(("Intensity", met))
    found.append(("Makespan", wording.makespan(report)))
    if told := promises.promise(report):
        made = report.promise
        found.append(("Promised by the plan", f"{told}. Forecast at submission: {made.forecast if made else ''}"))
    found += [("Achievable saving", text) for text in certified(report)]
    found += [("Settled", text) for text in settled(report)]
    found += [("Compute Gardener", text) for text in gardened(report)]
    return found


def _qualities(report: Report) -> str:
    """Return each quality of the grid data, with its share of the energy if there are several."""
    known = sum(report.qualities.values())
    if len(report.qualities) < 2 or not known:
        return report.quality
    return ", ".join(f"{quality} {percent(kwh / known)}" for quality, kwh in report.qualities.items())


def outages(report: Report) -> list[str]:
    """Return each signal outage: its time span, the fallback, and the cause."""
    return [
        f"{gap.start:%Y-%m-%d %H:%M} to {f'{gap.end:%Y-%m-%d %H:%M} UTC' if gap.end else 'the end'}: "
        f"{_STAND_INS.get(gap.freshness, gap.freshness)}{f' ({gap.why})' if gap.why else ''}"
        for gap in report.outages
    ]


_STAND_INS = {
    "stale": "the last answer, extended by its forecast",
    "forecast": "gridsweep's own forecast from history",
    "static": "a yearly average, not used for scheduling",
    "none": "no fallback",
}


def settled(report: Report) -> list[str]:
    """Return the figures on revised grid data beside the original ones, if the sweep was settled."""
    made = report.settlement
    if made is None:
        return []
    changed = (
        f"{made.revised} of {made.slots} slots revised, by up to {made.largest:.0f} g/kWh"
        if made.revised
        else f"none of {made.slots} slots was revised"
    )
    saved = "saving unknown" if made.reduction is None else f"{percent(made.reduction)} less than at once"
    then = "saving unknown" if report.reduction is None else f"{percent(report.reduction)} less"
    return [
        f"{grams(made.emissions_g)} CO2eq, {saved}, on {made.source} as of {made.at:%Y-%m-%d}; "
        f"before the revision: {grams(report.emissions_g)}, {then}; {changed}"
    ]


def gardened(report: Report) -> list[str]:
    """Return the intensities that Compute Gardener noted on held pods, beside the report's own; gCO2eq/kWh."""
    ours = {row.experiment: row.mean_intensity for row in report.rows}

    def level(value: float | None) -> str:
        return UNKNOWN if value is None else f"{value:.0f}"

    more = [f"and {len(report.gardened) - LATE} more; {WHERE}"] if len(report.gardened) > LATE else []
    return [
        f"{id}: {level(seen.initial_intensity)} when held, {level(seen.bind_intensity)} when released"
        f"{f' (its threshold: {level(seen.threshold)})' if seen.threshold is not None else ''}; "
        f"{level(ours.get(id))} on average over the run in this report"
        for id, seen in list(report.gardened.items())[:LATE]
    ] + more


def _spent(kwh: float, emitted: float, on: str) -> str:
    return f"{energy(kwh)}, {grams(emitted)} CO2eq {on}" if kwh else ""


def certified(report: Report) -> list[str]:
    """Return the achievable saving with both optima and their method, or the reason why it is unknown."""
    made = report.certificate
    if made is None:
        return []
    if made.regret_g is None:
        return [f"unknown: {made.why}"]
    never = f"{grams(made.optimum_g)} without pauses, " if made.optimum_g is not None else ""
    text = f"{wording.possible(report)} Optimum with perfect knowledge of the grid: {never}"
    text += f"{grams(made.pausing_g)} with free pauses"
    return [f"{text}; {made.why}" if made.why else text]
