"""Savings: the emissions against those of running at once, on the grid as first known and as settled later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gridsweep.accounting.ledger import Account, Ledger, ledger
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class Comparison:
    """Emissions of the ended experiments, and of the same work run at once, in g; `saving_g` is None if unknown."""

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
    """The figures on revised grid data. `revised` counts the slots whose value differs from the one used before.

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
    """The saving that the plan promised at the submission, and the saving of the whole sweep.

    `promised` and `came` are shares of the emissions of running at once; `came` is None until the sweep has ended, or
    if no saving is stated. `durations`, `grid`, `lost` (lost work and repeated loading) and `rest` are shares that add
    up to `came - promised`; None if a cause cannot be separated from the `rest`. `length` is the ratio of the real to
    the planned duration of the work. `why` says why causes are missing.
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
    lost: float | None = None
    rest: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """The same work under another policy, on the same grid; `reduction` is the share saved against running at once.

    `late` counts experiments that started after their tier's max_delay. Emissions are None if part of the grid is
    unknown.
    """

    name: str
    emissions_g: float | None
    reduction: float | None
    makespan_h: float
    late: int = 0


def compare(state: State, book: Ledger, base: Ledger | None) -> Comparison:
    """Compare the ended experiments, with the idle power, with the baseline's replay.

    No saving is stated if energy was used at unknown intensity in either, or at a yearly average in the sweep. There
    is no comparison if no training step was kept: an early failure neither saves nor wastes anything.
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
        saving = 0.0  # below the precision of the start and end times
    return Comparison(actual.emissions_g, other.emissions_g, saving)


def settlement(state: State, other: State | None) -> Settlement | None:
    """Return the latest settlement of a state; `other` is the baseline's replay. None before any settlement."""
    if state.settled is None or state.settled_at is None:
        return None
    known = state.history
    grid = state.settled.trace(state.submitted_at).between(known.start, known.end)  # no energy was used in later hours
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
