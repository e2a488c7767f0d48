"""What a report says in sentences, the same in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report, Scope
from gridsweep.render.figures import UNKNOWN, Scale, energy, grams, hours, loss, percent, signed
from gridsweep.sweep.experiments import number


@dataclass(frozen=True, slots=True)
class Saving:
    """The saving against running at once; `figure` is what stands large, `sentence` explains it."""

    kind: Literal["less", "more", "same", "unknown"]
    figure: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Badge:
    """A short warning that must not be missed, and what it means."""

    text: str
    meaning: str


def saving(report: Report) -> Saving:
    """What waiting for the grid brought, or why nobody can say."""
    actual = grams(_compared(report))
    if report.saving_g is None or report.reduction is None:
        figure = "Saving unknown" if report.immediate_g is not None else "No saving yet"
        return Saving("unknown", figure, _why_unknown(report))
    at_once = grams(report.immediate_g)
    there = f"{actual} emitted, {at_once} if run at once on the same devices with the same energy"
    if percent(abs(report.reduction)) == percent(0.0):
        return Saving("same", "No saving", f"{there}.")
    amount, share = grams(abs(report.saving_g)), percent(abs(report.reduction))
    if report.saving_g > 0:
        return Saving("less", f"{share} less", f"{amount} CO2eq saved: {there}.")
    return Saving("more", f"{share} more", f"{amount} CO2eq lost by waiting: {there}.")


def _compared(report: Report) -> float | None:
    """The emissions that the saving was taken from: those of what has ended, and idling."""
    if report.immediate_g is None or report.saving_g is None:
        return None
    return report.immediate_g - report.saving_g


def _why_unknown(report: Report) -> str:
    if report.immediate_g is None and any(row.ended_at is not None for row in report.rows):
        return "Nothing was trained: there is nothing to compare with running at once."
    if report.immediate_g is None:
        return "Nothing has ended yet: there is nothing to compare with running at once."
    if report.qualities.get("static"):
        return "Part of the energy met a yearly average instead of an observation: no saving is claimed on it."
    if report.unknown_kwh:
        return (
            f"{energy(report.unknown_kwh)} met hours in which the grid's intensity is unknown: they are in "
            "the energy and not in the emissions, so that no saving can be stated."
        )
    if report.saving_g is None:
        return (
            "Run at once, some of the work would have met hours in which the grid's intensity is unknown: "
            "there is nothing sure to compare with."
        )
    return "Run at once, the same work would have emitted nothing: there is no share to state."


def possible(report: Report) -> str:
    """How much of the possible saving was reached, and what was left; empty where nobody can say."""
    made = report.certificate
    if made is None or made.regret_g is None or made.possible_g is None:
        return ""
    if made.share is None:
        more = f"; {grams(made.regret_g)} more than needed were emitted" if made.regret_g > 1e-4 * made.actual_g else ""
        return f"Nothing could have been saved: no other hours would have been cleaner than those at once{more}."
    left = f"{grams(made.regret_g)} {'were' if made.proven else 'were about'} left"
    by = f" by {made.until:%Y-%m-%d %H:%M} UTC" if made.until else ""
    reached = made.immediate_g - made.actual_g
    if reached < 0:
        return f"{grams(made.possible_g)} could have been saved{by}; {left}."
    of = f"({grams(reached)} of {grams(made.possible_g)})"
    return f"{percent(made.share)} of the saving that was possible{by} {of}; {left}."


ALTERNATIVES = (
    "Simulated on the same grid: the same experiments, each trained as far as here with the same energy. The gate "
    "trains one experiment at a time on each device: when the grid is at or below the limit of its tier, or the tier's "
    "longest delay has passed."
)


def alternatives(report: Report) -> list[tuple[str, str, str, str]]:
    """The sweep beside the gate of its tiers and running at once: name, emissions, reduction, makespan."""
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
    """How many went on from each rung, with which share of the steps, and what that spared; empty without rungs."""
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
        text += f"; about {energy(spared)} were not spent on those that were stopped (by what they had drawn)"
    told = [rung.disagreed for rung in report.rungs if rung.disagreed is not None]
    if told:
        other = "training loss of the last steps" if report.rungs[0].by == "averaged" else "averaged weights"
        text += f". By the {other}, {sum(told)} of {sum(len(r.kept) - len(r.tied) for r in report.rungs)} would differ"
    tied = sum(len(rung.tied) for rung in report.rungs)
    if tied:
        text += f"; {tied} more were kept, as they could not be told from the last one"
    return text + "."


def interval(row: Row) -> str:
    """That of the difference to the reference, as `-0.0123 to -0.0050`; empty where it is not known."""
    return f"{signed(row.low)} to {signed(row.high)}" if row.low is not None and row.high is not None else ""


def places_of(row: Row) -> str:
    """The places an experiment may hold: `2`, or `1 to 4`; empty where they are not known."""
    if row.first is None or row.last is None:
        return ""
    return str(row.first) if row.first == row.last else f"{row.first} to {row.last}"


def summed(report: Report) -> Scope:
    """What a summary speaks of: the experiments that have ended, as the comparison does; all, before one has."""
    if report.ended is not None:
        return report.ended
    return Scope(len(report.rows), report.energy_kwh, report.emissions_g, report.mean_intensity, report.makespan_h)


def scope(report: Report) -> str:
    """Of how many experiments a summary speaks, where not of all, and what the others have emitted so far."""
    if report.ended is None or report.ended.experiments == len(report.rows):
        return ""
    return (
        f"Compared are the {report.ended.experiments} of {len(report.rows)} experiments that have ended. "
        f"The others have emitted {grams(report.emissions_g - report.ended.emissions_g)} so far, with "
        f"{energy(report.energy_kwh - report.ended.energy_kwh)}."
    )


def badges(report: Report) -> list[Badge]:
    """What a reader must see before any number."""
    found = []
    if "synthetic" in report.quality:
        found.append(Badge("synthetic grid", "A formula, no measurement: the saving is an illustration."))
    if report.replay:
        found.append(Badge("replayed clock", f"The grid's hours were replayed {report.replay}."))
    if any(row.base == "4-bit" for row in report.rows):
        found.append(Badge("4-bit proxy", "Ranked over the base in 4 bits: losses of another model."))
    if report.state != "done":
        found.append(Badge(report.state, "The sweep is not done: these figures will change."))
    return found


def counts(report: Report) -> str:
    """`19 done, 2 failed`."""
    return ", ".join(f"{n} {status}" for status, n in report.counts.items()) or "no experiments"


def baseline(report: Report) -> Row | None:
    """The published way of training, or whatever the spec calls its baseline."""
    return next((row for row in report.rows if row.experiment == report.baseline), None)


def reference(report: Report) -> str:
    """What losses are compared with, in a word."""
    return "baseline" if report.reference in (None, report.baseline) else "best"


def against_baseline(report: Report, row: Row) -> str:
    """How the best stands to the baseline, at the end or where that stopped: `-0.0321 against the baseline`."""
    if report.reference == report.baseline and row.experiment != report.baseline and row.difference is not None:
        return f"{signed(row.difference)} against the baseline"
    made = report.parted
    if made is None or report.best is None or row.experiment != report.best.experiment:
        return ""
    return (
        f"{signed(made.difference)} ({signed(made.low)} to {signed(made.high)}) against the baseline at step "
        f"{made.step}, where that stopped"
    )


def name(row: Row) -> str:
    """An experiment's id; of one trained again with what differs, for nothing else tells them apart."""
    if row.repeats is None:
        return row.experiment
    return f"{row.experiment} ({f'seed {row.seed}' if row.place is None else 'full base'})"


def outcome(row: Row) -> str:
    """What became of an experiment and why, as `failed: out of memory`; `stopped at step 4 of 35: ...` says both."""
    return row.reason if row.reason.startswith(row.status) else f"{row.status}: {row.reason}"


def seeds(row: Row) -> str:
    """Of how many seeds a loss is the mean, and how far they spread; empty for one."""
    if row.seeds < 2 or row.spread is None:
        return ""
    return f"mean of {row.seeds} seeds, spread {row.spread:.4f}"


def partly_unknown(row: Row) -> bool:
    """Whether some of its energy met an unknown intensity, so that its emissions are a lower bound."""
    return row.unknown_kwh > 0


def emitted(row: Row, scale: Scale) -> str:
    """An experiment's emissions in a column's unit; a lower bound, or nothing, where the grid was unknown."""
    if row.mean_intensity is None and row.energy_kwh:
        return UNKNOWN
    return ("≥ " if partly_unknown(row) else "") + scale.text(row.emissions_g)


def winner(report: Report) -> str:
    """The best loss, and how sure it is."""
    best = report.best
    if best is None:
        return "No experiment has a validation loss yet."
    ties = sum(row.tied for row in report.rows) - 1
    text = f"validation loss {loss(best.loss)}"
    if told := seeds(best):
        text += f" ({told})"
    if best.experiment == report.baseline:
        text += ", the baseline itself"
    elif told := against_baseline(report, best):
        text += f", {told}"
    if report.loss_noise is None and best.seeds < 2:
        return f"{text}. No noise of the loss is stated: close places may be chance."
    if ties > 0:
        return f"{text}. {ties} other{'s are' if ties > 1 else ' is'} not separable from it."
    if report.loss_noise is None:
        return f"{text}. Every other is separable from it."
    return f"{text}. Every other is further away than the noise of {number(report.loss_noise)}."


def tie_note(report: Report) -> str:
    """What the sign of a tie means; empty where there is none."""
    if not any(row.tied for row in report.rows[1:]):
        return ""
    reasons = []
    if report.loss_noise is not None:
        reasons.append(f"within {number(report.loss_noise)}, the stated noise of the loss")
    if any(row.first is not None for row in report.rows):
        reasons.append("by paired differences on the validation samples (95 %, of these adapters)")
    return f"not separable from the best: {', or '.join(reasons)}"


def verdict(separable: bool | None) -> str:
    """Whether an effect stands out of the noise."""
    return {True: "yes", False: "no, within the noise", None: "unknown: no noise stated"}[separable]


def tiers(report: Report) -> list[str]:
    """The tiers' names by rank, as far as a report shows it: running at once starts them in that order."""
    ordered = sorted(report.immediate_bars, key=lambda bar: bar.start)
    names = [*report.thresholds, *(bar.tier for bar in ordered), *sorted(row.tier for row in report.rows)]
    return list(dict.fromkeys(names))


def makespan(report: Report) -> str:
    """First submission to last end, beside that of running at once."""
    text = hours(summed(report).makespan_h)
    other = report.immediate_makespan_h
    return text if other is None else f"{text}, {hours(other)} if run at once"
