"""Sentences of a report, the same in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report, Scope
from gridsweep.render.figures import UNKNOWN, Scale, energy, grams, hours, loss, percent, signed
from gridsweep.sweep.experiments import number, text


@dataclass(frozen=True, slots=True)
class Saving:
    """The saving against running at once; `figure` is the headline, `sentence` explains it."""

    kind: Literal["less", "more", "same", "unknown"]
    figure: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Badge:
    """A short, prominent warning and its meaning."""

    text: str
    meaning: str


def saving(report: Report) -> Saving:
    """Return the saving from waiting for the grid, or the reason why it is unknown."""
    actual = grams(_compared(report))
    if report.saving_g is None or report.reduction is None:
        figure = "Saving unknown" if report.immediate_g is not None else "No saving yet"
        return Saving("unknown", figure, _why_unknown(report))
    at_once = grams(report.immediate_g)
    there = f"{actual} emitted, {at_once} when run at once on the same devices with the same energy"
    if percent(abs(report.reduction)) == percent(0.0):
        return Saving("same", "No saving", f"{there}.")
    amount, share = grams(abs(report.saving_g)), percent(abs(report.reduction))
    if report.saving_g > 0:
        return Saving("less", f"{share} less", f"{amount} CO2eq saved: {there}.")
    return Saving("more", f"{share} more", f"{amount} CO2eq lost by waiting: {there}.")


def _compared(report: Report) -> float | None:
    """Return the emissions (g) that the saving compares: ended experiments and idle devices."""
    if report.immediate_g is None or report.saving_g is None:
        return None
    return report.immediate_g - report.saving_g


def _why_unknown(report: Report) -> str:
    if report.immediate_g is None and any(row.ended_at is not None for row in report.rows):
        return "No experiment was trained, so there is no comparison with running at once."
    if report.immediate_g is None:
        return "No experiment has ended yet, so there is no comparison with running at once."
    if report.qualities.get("static"):
        return (
            "Part of the energy was counted with a yearly average instead of an observation, so no saving is claimed."
        )
    if report.unknown_kwh:
        return (
            f"{energy(report.unknown_kwh)} was used at unknown intensity. This energy is in the total energy but not "
            "in the emissions, so no saving can be stated."
        )
    if report.saving_g is None:
        return (
            "Run at once, some of the work would have used energy at unknown intensity, so there is no reliable "
            "comparison."
        )
    return "Run at once, the same work would have emitted nothing, so there is no percentage to state."


def possible(report: Report) -> str:
    """Return how much of the achievable saving was captured, and the distance to the optimum; empty if unknown."""
    made = report.certificate
    if made is None or made.regret_g is None or made.possible_g is None:
        return ""
    if made.share is None:
        more = (
            f"; emissions are {grams(made.regret_g)} above the optimum" if made.regret_g > 1e-4 * made.actual_g else ""
        )
        return f"No saving was achievable: no other hours would have been cleaner than running at once{more}."
    left = f"emissions are {grams(made.regret_g)} {'above' if made.proven else '(estimated) above'} the optimum"
    by = f" by {made.until:%Y-%m-%d %H:%M} UTC" if made.until else ""
    reached = made.immediate_g - made.actual_g
    if reached < 0:
        return f"A saving of {grams(made.possible_g)} was achievable{by}; {left}."
    of = f"({grams(reached)} of {grams(made.possible_g)})"
    return f"{percent(made.share)} of the saving achievable{by} was captured {of}; {left}."


ALTERNATIVES = (
    "Simulated on the same grid: the same experiments, each trained for the same steps with the same energy. The gate "
    "trains one experiment at a time on each device, and starts it when the carbon intensity is at or below the limit "
    "of its tier, or when the tier's longest delay has passed."
)


def alternatives(report: Report) -> list[tuple[str, str, str, str]]:
    """Return rows that compare the sweep with its tiers' gate and with running at once.

    Each row holds name, emissions, reduction and makespan.
    """
    return [
        (
            f"{other.name}, {other.late} start late" if other.late else other.name,
            grams(other.emissions_g),
            "" if other.name == "at once" else _less(other.reduction),
            hours(other.makespan_h),
        )
        for other in report.alternatives
    ]


def _less(reduction: float | None) -> str:
    if reduction is None:
        return UNKNOWN
    return f"{percent(abs(reduction))} {'less' if reduction >= 0 else 'more'}"


def rungs(report: Report) -> str:
    """Return how many experiments passed each rung, their share of all steps, and the energy saved; empty if none."""
    if report.steps_share is None:
        return ""
    if not report.rungs:
        return "No rung is decided yet."
    first = report.rungs[0]
    chain = [len(first.kept) + len(first.stopped), *(len(rung.kept) for rung in report.rungs)]
    at = ", ".join(str(rung.step) for rung in report.rungs)
    text = f"{' → '.join(map(str, chain))} experiments at steps {at} of {report.total_steps}"
    text += f": {percent(report.steps_share)} of all steps"
    spared = sum(row.saved_kwh or 0.0 for row in report.rows)
    if spared:
        text += f"; stopping experiments early saved about {energy(spared)} (estimated from their energy until then)"
    told = [rung.disagreed for rung in report.rungs if rung.disagreed is not None]
    if told:
        other = "training loss of the last steps" if report.rungs[0].by == "averaged" else "averaged weights"
        text += (
            f". Ranking by {other} would have changed {sum(told)} of "
            f"{sum(len(r.kept) - len(r.tied) for r in report.rungs)} kept experiments"
        )
    tied = sum(len(rung.tied) for rung in report.rungs)
    if tied:
        text += f"; {tied} more were kept because they tied with the last one kept"
    return text + "."


def interval(row: Row) -> str:
    """Return the confidence interval of the difference to the reference, as `-0.0123 to -0.0050`; empty if unknown."""
    return f"{signed(row.low)} to {signed(row.high)}" if row.low is not None and row.high is not None else ""


def also(row: Row) -> str:
    """Return the values of further axes, each after a comma; empty without any."""
    return "".join(f", {key} {text(value)}" for key, value in row.more.items())


def places_of(row: Row) -> str:
    """Return the range of places of an experiment: `2`, or `1 to 4`; empty if unknown."""
    if row.first is None or row.last is None:
        return ""
    return str(row.first) if row.first == row.last else f"{row.first} to {row.last}"


def summed(report: Report) -> Scope:
    """Return the experiments that a summary covers: those that have ended, as in the comparison; else all."""
    if report.ended is not None:
        return report.ended
    return Scope(len(report.rows), report.energy_kwh, report.emissions_g, report.mean_intensity, report.makespan_h)


def scope(report: Report) -> str:
    """Return how many experiments a summary covers, and the emissions of the others so far; empty if it covers all."""
    if report.ended is None or report.ended.experiments == len(report.rows):
        return ""
    return (
        f"The comparison covers the {report.ended.experiments} of {len(report.rows)} experiments that have ended. "
        f"The others have emitted {grams(report.emissions_g - report.ended.emissions_g)} so far, with "
        f"{energy(report.energy_kwh - report.ended.energy_kwh)}."
    )


def badges(report: Report) -> list[Badge]:
    """Return the warnings that belong before any number."""
    found = []
    if "synthetic" in report.quality:
        found.append(Badge("synthetic grid", "The grid data comes from a formula, so the saving is an illustration."))
    if report.replay:
        found.append(Badge("replayed clock", f"The grid was replayed {report.replay}."))
    if any(row.base == "4-bit" for row in report.rows):
        found.append(Badge("4-bit proxy", "Ranked on the base model in 4 bits; the full model has other losses."))
    if report.state != "done":
        found.append(Badge(report.state, "The sweep is not done, so these figures will change."))
    return found


def counts(report: Report) -> str:
    """Return the number of experiments by status: `19 done, 2 failed`."""
    return ", ".join(f"{n} {status}" for status, n in report.counts.items()) or "no experiments"


def baseline(report: Report) -> Row | None:
    """Return the row of the baseline that the spec names (the published recipe by default)."""
    return next((row for row in report.rows if row.experiment == report.baseline), None)


def reference(report: Report) -> str:
    """Return the name of the experiment that losses are compared with: `baseline` or `best`."""
    return "baseline" if report.reference in (None, report.baseline) else "best"


def against_baseline(report: Report, row: Row) -> str:
    """Return the best loss relative to the baseline: `-0.0321 against the baseline`.

    A baseline that stopped early is compared at the step where it stopped.
    """
    if report.reference == report.baseline and row.experiment != report.baseline and row.difference is not None:
        return f"{signed(row.difference)} against the baseline"
    made = report.parted
    if made is None or report.best is None or row.experiment != report.best.experiment:
        return ""
    return (
        f"{signed(made.difference)} ({signed(made.low)} to {signed(made.high)}) against the baseline at step "
        f"{made.step}, where the baseline stopped"
    )


def name(row: Row) -> str:
    """Return an experiment's id; a repeat adds its seed or `full base`, which tells it apart from the original."""
    if row.repeats is None:
        return row.experiment
    return f"{row.experiment} ({f'seed {row.seed}' if row.place is None else 'full base'})"


def outcome(row: Row) -> str:
    """Return the status of an experiment with its reason: `failed: out of memory`."""
    return row.reason if row.reason.startswith(row.status) else f"{row.status}: {row.reason}"


def seeds(row: Row) -> str:
    """Return the number of seeds behind a mean loss, and their spread; empty for one seed."""
    if row.seeds < 2 or row.spread is None:
        return ""
    return f"mean of {row.seeds} seeds, spread {row.spread:.4f}"


def partly_unknown(row: Row) -> bool:
    """Return whether some energy was used at unknown intensity, which makes the emissions a lower bound."""
    return row.unknown_kwh > 0


def emitted(row: Row, scale: Scale) -> str:
    """Return an experiment's emissions in a column's unit; `≥` marks a lower bound at unknown intensity."""
    if row.mean_intensity is None and row.energy_kwh:
        return UNKNOWN
    return ("≥ " if partly_unknown(row) else "") + scale.text(row.emissions_g)


def winner(report: Report) -> str:
    """Return the best loss, its comparison with the baseline, and whether other experiments tie with it."""
    best = report.best
    if best is None:
        return "No experiment has a validation loss yet."
    ties = sum(row.tied for row in report.rows) - 1
    text = f"validation loss {loss(best.loss)}"
    if told := seeds(best):
        text += f" ({told})"
    if best.experiment == report.baseline:
        text += ", which is the baseline"
    elif told := against_baseline(report, best):
        text += f", {told}"
    if report.loss_noise is None and best.seeds < 2:
        return f"{text}. The spec states no loss noise, so close places may be chance."
    if ties > 0:
        return f"{text}. {ties} other{'s are' if ties > 1 else ' is'} statistically tied with it."
    if report.loss_noise is None:
        return f"{text}. No other experiment is tied with it."
    return f"{text}. Every other loss differs by more than the noise of {number(report.loss_noise)}."


def tie_note(report: Report) -> str:
    """Return the meaning of the tie mark; empty without ties."""
    if not any(row.tied for row in report.rows[1:]):
        return ""
    reasons = []
    if report.loss_noise is not None:
        reasons.append(f"within {number(report.loss_noise)}, the stated loss noise")
    if any(row.first is not None for row in report.rows):
        reasons.append("by paired differences on the validation samples (95 %, these adapters only)")
    return f"statistically tied with the best: {', or '.join(reasons)}"


def verdict(separable: bool | None) -> str:
    """Return whether an effect is significant: larger than the loss noise."""
    return {True: "yes", False: "no, within the noise", None: "unknown: no loss noise stated"}[separable]


def tiers(report: Report) -> list[str]:
    """Return the tiers' names by rank, inferred from the start order of running at once."""
    ordered = sorted(report.immediate_bars, key=lambda bar: bar.start)
    names = [*report.thresholds, *(bar.tier for bar in ordered), *sorted(row.tier for row in report.rows)]
    return list(dict.fromkeys(names))


def lost(report: Report) -> str:
    """Return the energy of lost work and of repeated loading with its emissions; empty if there was none."""
    parts = (
        (report.wasted_kwh, report.wasted_g, "in lost work"),
        (report.reloaded_kwh, report.reloaded_g, "in loading again"),
    )
    return " and ".join(f"{grams(emitted)} ({energy(kwh)}) {on}" for kwh, emitted, on in parts if kwh)


def makespan(report: Report) -> str:
    """Return the makespan (first submission to last end), and the makespan of running at once."""
    text = hours(summed(report).makespan_h)
    other = report.immediate_makespan_h
    return text if other is None else f"{text}, {hours(other)} when run at once"
