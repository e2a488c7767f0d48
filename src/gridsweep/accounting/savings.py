"""Savings: what was emitted beside what running at once would have emitted, as known then and as settled later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gridsweep.accounting.ledger import Account, Ledger, ledger
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class Comparison:
    """Emissions of what has ended, and of the same work run at once, in g; `saving_g` None where nobody can say."""

    actual_g: float
    immediate_g: float | None
    saving_g: float | None

    @property
    def reduction(self) -> float | None:
        if self.saving_g is None or not self.immediate_g or self.immediate_g <= 0:
            return None
        return self.saving_g / self.immediate_g


@dataclass(frozen=True, slots=True)
class Settlement:
    """The figures on revised grid data, beside those that were scheduled on. `revised` slots had another value.

    `largest` is the largest revision, in gCO2eq/kWh.
    """

    at: datetime
    source: str
    quality: str
    emissions_g: float
    unknown_kwh: float
    immediate_g: float | None
    saving_g: float | None
    reduction: float | None
    revised: int
    slots: int
    largest: float


@dataclass(frozen=True, slots=True)
class Promise:
    """What the plan promised at the submission, beside what came of the whole sweep.

    `promised` and `came` are shares of what running at once would have emitted; `came` is None until the sweep has
    ended, or where no saving is stated. `durations`, `grid` and `rest` are shares that add up to `came - promised`;
    None where a cause cannot be told apart from the `rest`. `length` is how many times as long as planned the work
    took. `why` says why causes are missing.
    """

    forecast: str
    promised: float | None
    promised_g: float
    promised_h: float
    came: float | None
    came_g: float | None
    came_h: float | None
    length: float | None = None
    durations: float | None = None
    grid: float | None = None
    rest: float | None = None
    why: str = ""


def compare(state: State, book: Ledger, base: Ledger | None) -> Comparison:
    """The experiments that have ended, with the idle power, beside the baseline's replay.

    No saving is stated where energy met an unknown intensity in either world, or a yearly average in this one, and no
    comparison is made where no step of training was kept: failing early saves nothing and loses nothing.
    """
    ended = [id for id, standing in state.standings.items() if standing.ended_at is not None]
    actual = sum((book.experiments[id] for id in ended), Account()) + book.idle
    if base is None or not any(state.standings[id].step for id in ended):
        return Comparison(actual.emissions_g, None, None)
    other = base.total
    if actual.unknown_kwh or other.unknown_kwh or book.qualities.get("static"):
        return Comparison(actual.emissions_g, other.emissions_g, None)
    saving = other.emissions_g - actual.emissions_g
    if abs(saving) < 1e-6 * other.emissions_g:
        saving = 0.0  # finer than the times of starts and ends are known
    return Comparison(actual.emissions_g, other.emissions_g, saving)


def settlement(state: State, other: State | None) -> Settlement | None:
    """The latest settlement of a state; `other` is the baseline's replay. None before it was settled."""
    if state.settled is None or state.settled_at is None:
        return None
    known = state.history
    grid = state.settled.trace(state.submitted_at).between(known.start, known.end)  # later hours met nothing of it
    book = ledger(state, grid)
    found = compare(state, book, ledger(other, grid) if other else None)
    pairs = [(grid.at(moment), known.at(moment)) for moment in (grid.start + i * grid.step for i in range(len(grid)))]
    changes = [abs(later - then) for later, then in pairs if abs(later - then) > 1e-9]
    return Settlement(
        at=state.settled_at,
        source=", ".join(dict.fromkeys(p.title for p in state.settled.provenances)),
        quality=", ".join(state.settled.qualities),
        emissions_g=book.total.emissions_g,
        unknown_kwh=book.total.unknown_kwh,
        immediate_g=found.immediate_g,
        saving_g=found.saving_g,
        reduction=found.reduction,
        revised=len(changes),
        slots=len(grid),
        largest=max(changes, default=0.0),
    )
