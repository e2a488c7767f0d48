"""How a report was counted, as pairs of a term and what is to be said of it: the same in every format."""

from __future__ import annotations

from gridsweep.accounting.report import Report
from gridsweep.render import promises, wording
from gridsweep.render.figures import UNKNOWN, energy, grams, percent


def accounting(report: Report) -> list[tuple[str, str]]:
    """How it was counted, as pairs of a term and what is to be said of it."""
    total = sum(report.energy_sources.values())
    sources = "; ".join(
        f"{name} {energy(kwh)} ({percent(kwh / total)})" if total else name
        for name, kwh in sorted(report.energy_sources.items(), key=lambda item: -item[1])
    )
    emitted_g, unknown = grams(report.emissions_g), energy(report.unknown_kwh)
    wasted = _spent(report.wasted_kwh, report.wasted_g, "in work that no result kept")
    idle = _spent(report.idle_kwh, report.idle_g, "while devices waited")
    ended = report.ended
    part = f"; {grams(ended.emissions_g)} of it in the {ended.experiments} experiments that have ended" if ended else ""
    part = part if ended and ended.experiments < len(report.rows) else ""
    found = [
        ("Emissions", f"{emitted_g} CO2eq, location-based: energy times intensity over every run{part}"),
        ("Energy", f"{energy(report.energy_kwh)} in all"),
        ("Energy sources", sources or "nothing was measured yet"),
        ("Wasted", wasted or "nothing: all work was kept"),
        ("Idle", idle or "nothing: no idle power is stated"),
        ("Unknown", f"{unknown} met an unknown intensity" if report.unknown_kwh else "nothing"),
        ("Grid", f"{report.zone}: {report.source or 'not read yet'}"),
        ("Quality of the grid data", _qualities(report) or "not read yet"),
        ("What a gram counts", report.meaning or "not read yet"),
    ]
    found += [("Signal lost", text) for text in outages(report)]
    mean = wording.summed(report).mean_intensity
    if mean is not None:
        met = f"{mean:.0f} gCO2eq/kWh met on average"
        if report.immediate_intensity is not None:
            met += f", {report.immediate_intensity:.0f} if run at once"
        found.append(("Intensity", met))
    found.append(("Makespan", wording.makespan(report)))
    if told := promises.promise(report):
        made = report.promise
        found.append(("Promised by the plan", f"{told}. Planned at the submission on: {made.forecast if made else ''}"))
    found += [("What was possible", text) for text in certified(report)]
    found += [("Settled", text) for text in settled(report)]
    found += [("Compute Gardener", text) for text in gardened(report)]
    return found


def _qualities(report: Report) -> str:
    """Each quality with the share of the energy that met it, where there are several."""
    known = sum(report.qualities.values())
    if len(report.qualities) < 2 or not known:
        return report.quality
    return ", ".join(f"{quality} {percent(kwh / known)}" for quality, kwh in report.qualities.items())


def outages(report: Report) -> list[str]:
    """When nobody saw the grid, what stood in, and why."""
    return [
        f"{gap.start:%Y-%m-%d %H:%M} to {f'{gap.end:%Y-%m-%d %H:%M} UTC' if gap.end else 'the end'}: "
        f"{_STAND_INS.get(gap.freshness, gap.freshness)}{f' ({gap.why})' if gap.why else ''}"
        for gap in report.outages
    ]


_STAND_INS = {
    "stale": "the last answer, carried on by its forecast",
    "forecast": "our own forecast from history",
    "static": "a yearly average, by which nothing was placed",
    "none": "nothing",
}


def settled(report: Report) -> list[str]:
    """The figures on revised data beside those of then, where the sweep was settled."""
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
        f"as known then: {grams(report.emissions_g)}, {then}; {changed}"
    ]


def gardened(report: Report) -> list[str]:
    """What Compute Gardener wrote on the pods it held back, each beside our own figure; gCO2eq/kWh."""
    ours = {row.experiment: row.mean_intensity for row in report.rows}

    def level(value: float | None) -> str:
        return UNKNOWN if value is None else f"{value:.0f}"

    return [
        f"{id}: {level(seen.initial_intensity)} when held back, {level(seen.bind_intensity)} when let go; "
        f"{level(ours.get(id))} on average over its run, by this report"
        for id, seen in report.gardened.items()
    ]


def _spent(kwh: float, emitted: float, on: str) -> str:
    return f"{energy(kwh)}, {grams(emitted)} CO2eq {on}" if kwh else ""


def certified(report: Report) -> list[str]:
    """What was possible, with both optima and how they were counted, or why nobody can say."""
    made = report.certificate
    if made is None:
        return []
    if made.regret_g is None:
        return [f"unknown: {made.why}"]
    never = f"{grams(made.optimum_g)} never pausing, " if made.optimum_g is not None else ""
    text = f"{wording.possible(report)} The optimum, had the grid been known: {never}"
    text += f"{grams(made.pausing_g)} pausing at will"
    return [f"{text}; {made.why}" if made.why else text]
