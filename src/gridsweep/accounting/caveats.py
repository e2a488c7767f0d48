"""The caveats of a report's figures."""

from __future__ import annotations

from collections.abc import Collection

from gridsweep.accounting.ledger import Ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.state.events import UNTOLD
from gridsweep.state.state import State
from gridsweep.sweep.axes import UNEVEN
from gridsweep.sweep.experiments import number

UNSEEN = ("forecast", "stale", "imputed")
"""Qualities of slots that were not observed when they were used, nor filled in later."""


def caveats(state: State, book: Ledger) -> list[str]:
    """Return the caveats of the figures, one sentence or two each."""
    notes = [*_of_collection(state), *_of_grid(state, book), *_of_energy(book), *_of_losses(state)]
    notes += _of_axes(state)
    if seen := state.facts.get("validation_seen"):
        notes.append(f"The losses flatter every experiment alike: {seen}.")
    if book.total.unknown_kwh:
        notes.append(
            f"{book.total.unknown_kwh:.6g} kWh were used at unknown intensity: the energy includes them, the emissions "
            "do not, and no saving is stated."
        )
    if ahead := [abs(attempt.clock) for attempt in state.attempts.values() if attempt.clock]:
        most = max(ahead).total_seconds()
        notes.append(
            f"The clocks of {len(ahead)} attempts differed from this machine's by up to {most:.0f} s; corrected."
        )
    if cancelled := state.count("cancelled"):
        notes.append(f"{cancelled} of {len(state.standings)} experiments were cancelled by a user and not compared.")
    changed = [(event.at, event.changes) for event in state.amendments]
    changed += [(event.at, event.changes) for event in state.asks.taken.values() if event.changes]
    for at, lines in sorted(changed):
        notes.append(f"Changed on {at:%Y-%m-%d %H:%M} UTC: {'; '.join(lines)}.")
    notes.append(
        "Boundary: the workers' energy, and the idle power stated in the spec. Not counted: the rest of the machine, "
        "the network, hardware manufacturing."
    )
    return notes


def _of_axes(state: State) -> list[str]:
    """Return what was held equal between experiments that differ in how many samples they see, or in their length."""
    sweep, experiments = state.sweep, [s.experiment for s in state.standings.values()]
    varied = {key for experiment in experiments for key, _ in experiment.params.more}
    said = []
    if sweep.uneven:
        recipes = [(sweep.recipe_of(e), sweep.total_of(e)) for e in experiments]
        steps = {total for _, total in recipes}
        seen = {total * recipe.batch_size * recipe.accumulation for recipe, total in recipes}
        said.append(
            f"Experiments differ in {', '.join(sorted(varied & set(UNEVEN)))}: {_span(steps, 'steps')}, "
            f"{_span(seen, 'samples seen')}. Rungs compare them at equal shares of their own steps."
        )
    if "max_length" in varied:
        said.append(
            f"Training samples are cut to different lengths; validation samples, alike for all, to "
            f"{sweep.recipe.max_length} tokens."
        )
    return said


def _span(values: Collection[int], what: str) -> str:
    least, most = min(values), max(values)
    return f"all {least:,} {what}" if least == most else f"{least:,} to {most:,} {what}"


def _of_collection(state: State) -> list[str]:
    """Return what a reader must know of a sweep whose jobs other components started."""
    told = state.collected
    if told is None:
        return []
    unknown = f" Unknown: {'; '.join(told.unknown)}." if told.unknown else ""
    return [
        f"Collected from {told.source}, as of {told.at:%Y-%m-%d %H:%M} UTC: the gate {told.gate} started the jobs, not "
        f"a policy of gridsweep. Devices are those of the spec, taken in order of the starts.{unknown}"
    ]


def _of_grid(state: State, book: Ledger) -> list[str]:
    """Return the caveats on the source of the intensities and on the clock."""
    notes = []
    if "synthetic" in state.grid.qualities:
        notes.append("The grid is synthetic: a formula, not a measurement. The saving is an illustration, not a claim.")
    if "static" in state.grid.qualities:
        notes.append("Part of the grid data is a yearly average, not an observation: no saving is claimed on it.")
    unseen = {q: kwh for q, kwh in book.qualities.items() if q in UNSEEN and kwh > 0}
    if unseen and book.total.energy_kwh:
        shares = ", ".join(f"{kwh / book.total.energy_kwh:.0%} {quality}" for quality, kwh in unseen.items())
        notes.append(f"Part of the energy was used in hours without observed intensity: {shares}.")
    if state.grid.foreign:
        kind, basis = state.grid.provenances[0].meaning
        notes.append(
            f"{state.grid.foreign} slots had intensities of another kind than {kind}, {basis}: they count as unknown."
        )
    if state.sweep.replay:
        pace = ""
        if state.sweep.follows_work:
            hours = number(round(state.sweep.estimates.duration / HOUR, 2))
            pace = f" Replayed time follows the training steps: those of one experiment take the estimated {hours} h."
        notes.append(
            "The clock is replayed: the energy is charged to hours of the replayed grid, not to those of its use."
            f"{pace}"
        )
    if instant := sum(s.kwh for a in state.attempts.values() for s in a.energy if s.end <= s.start):
        share = f"{instant / book.training.energy_kwh:.0%}"
        notes.append(
            f"{share} of the training energy took no grid time (attempts interrupted before their first step): "
            "it is charged at the intensity of that instant."
        )
    return notes


def _of_energy(book: Ledger) -> list[str]:
    """Return the caveat on the share of modelled energy."""
    modelled = sum(kwh for source, kwh in book.sources.items() if source.startswith("modelled"))
    if not modelled:
        return []
    total, untold = sum(book.sources.values()), book.sources.get(UNTOLD, 0.0)
    notes = []
    if modelled > untold:
        share = (modelled - untold) / total
        notes.append(f"{share:.0%} of the energy is modelled from CPU time and a stated wattage, not measured.")
    if untold:
        notes.append(
            f"{untold / total:.0%} of the energy is the devices' stated power: the workers' files do not tell the "
            "energy of all steps (energy.jsonl is gone, cut, refused or reads zero)."
        )
    return notes


def _of_losses(state: State) -> list[str]:
    """Return the caveats on the model behind the losses and on their noise between seeds."""
    notes = []
    packed = sum(s.experiment.base == "4-bit" for s in state.standings.values())
    if packed:
        notes.append(
            f"{packed} of {len(state.standings)} experiments were trained over the base in 4 bits, a proxy: the best "
            "configuration may differ over the full base."
        )
    seeds = {e.seed for e in state.sweep.experiments}
    if len(seeds) > 1:
        repeated = {e.repeats for e in state.sweep.experiments if e.repeats}
        notes.append(f"{len(repeated)} of the best were trained with {len(seeds)} seeds, all others with one.")
    elif state.sweep.estimates.loss_noise is None:
        notes.append("One seed per experiment and no stated noise of the loss: a small difference may be chance.")
    else:
        notes.append(
            f"One seed per experiment. Another seed moves a loss by up to {number(state.sweep.estimates.loss_noise)} "
            "(stated in the spec): smaller differences are not significant."
        )
    return notes
