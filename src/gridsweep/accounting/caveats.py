"""What a reader must know to trust a report's figures."""

from __future__ import annotations

from gridsweep.accounting.ledger import Ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.state.state import State
from gridsweep.sweep.experiments import number

UNSEEN = ("forecast", "stale", "imputed")
"""Qualities of slots that nobody had seen when they were used, and that were not filled in later."""


def caveats(state: State, book: Ledger) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = [*_of_grid(state, book), *_of_energy(book), *_of_losses(state)]
    if book.total.unknown_kwh:
        notes.append(
            f"{book.total.unknown_kwh:.6g} kWh met an unknown intensity: they are in the energy, not in the emissions, "
            "and no saving is stated."
        )
    for change in state.amendments:
        notes.append(f"Changed on {change.at:%Y-%m-%d %H:%M} UTC: {'; '.join(change.changes)}.")
    notes.append(
        "Boundary: the workers' energy (and the idle power the spec states). Not counted: the rest of the machine, "
        "network, making the hardware."
    )
    return notes


def _of_grid(state: State, book: Ledger) -> list[str]:
    """Where the intensities come from, and on which clock they were met."""
    notes = []
    if "synthetic" in state.grid.qualities:
        notes.append("The grid is synthetic: a formula, no measurement. The saving is an illustration, not a claim.")
    if "static" in state.grid.qualities:
        notes.append("Part of the grid is a yearly average, no observation: no saving is claimed on it.")
    unseen = {q: kwh for q, kwh in book.qualities.items() if q in UNSEEN and kwh > 0}
    if unseen and book.total.energy_kwh:
        shares = ", ".join(f"{kwh / book.total.energy_kwh:.0%} {quality}" for quality, kwh in unseen.items())
        notes.append(f"Not all of the energy met figures that were observed: {shares}.")
    if state.grid.foreign:
        kind, basis = state.grid.provenances[0].meaning
        notes.append(
            f"{state.grid.foreign} slots came with figures of another meaning than {kind}, {basis}: they count as "
            "unknown."
        )
    if state.sweep.replay:
        pace = ""
        if state.sweep.follows_work:
            hours = number(round(state.sweep.estimates.duration / HOUR, 2))
            pace = f" Its time follows the steps that were made: those of one experiment take the {hours} h estimated."
        notes.append(
            "The clock is replayed: training took seconds, its energy is charged to the hours of the replayed grid."
            f"{pace}"
        )
    return notes


def _of_energy(book: Ledger) -> list[str]:
    """How much of the energy is modelled."""
    modelled = sum(kwh for source, kwh in book.sources.items() if source.startswith("modelled"))
    if not modelled:
        return []
    share = modelled / sum(book.sources.values())
    return [f"{share:.0%} of the energy is modelled from CPU time and a stated wattage, not measured."]


def _of_losses(state: State) -> list[str]:
    """Of which model the losses are, and how far another seed would move them."""
    notes = []
    packed = sum(s.experiment.base == "4-bit" for s in state.standings.values())
    if packed:
        notes.append(
            f"{packed} of {len(state.standings)} experiments were trained over the base in 4 bits, a proxy: their "
            "losses are those of another model, whose best configuration may differ from the full one's."
        )
    seeds = {e.seed for e in state.sweep.experiments}
    if len(seeds) > 1:
        repeated = {e.repeats for e in state.sweep.experiments if e.repeats}
        notes.append(f"{len(repeated)} of the best were trained with {len(seeds)} seeds, all others with one.")
    elif state.sweep.estimates.loss_noise is None:
        notes.append("One seed an experiment and no stated noise of the loss: close places may be chance.")
    else:
        notes.append(
            f"One seed an experiment. Another seed moves a loss by up to {number(state.sweep.estimates.loss_noise)} "
            "(as the spec states): places closer than that are not separable."
        )
    return notes
