"""The ledger of a sweep: energy x intensity, integrated over every run, and the idle power in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.state.events import Segment
from gridsweep.state.observed_grid import Grid
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class Account:
    """Energy and its emissions. `unknown_kwh`, used at unknown intensity, is in `energy_kwh`, not in `emissions_g`."""

    energy_kwh: float = 0.0
    emissions_g: float = 0.0
    unknown_kwh: float = 0.0

    def __add__(self, other: Account) -> Account:
        return Account(
            self.energy_kwh + other.energy_kwh,
            self.emissions_g + other.emissions_g,
            self.unknown_kwh + other.unknown_kwh,
        )

    @property
    def mean_intensity(self) -> float | None:
        """Mean intensity over the energy whose intensity is known, gCO2eq/kWh; None without any."""
        known = self.energy_kwh - self.unknown_kwh
        return self.emissions_g / known if known > 1e-15 else None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounts of a sweep. `experiments` sum to `training`; `wasted` is the part of it that no result kept.

    `reloaded` is the part in which interrupted stints loaded again before their next step. `sources` is the energy
    (kWh) by meter, `qualities` by the quality of the grid data at the time of use.
    """

    experiments: dict[str, Account]
    training: Account
    idle: Account
    wasted: Account
    reloaded: Account
    started_at: datetime
    ended_at: datetime
    sources: dict[str, float]
    qualities: dict[Quality, float]

    @property
    def total(self) -> Account:
        return self.training + self.idle

    @property
    def makespan(self) -> timedelta:
        """The time from the first submission to the last end."""
        return self.ended_at - self.started_at


def charge(segments: Iterable[Segment], grid: Trace) -> Account:
    """Return the account of segments: each one's energy, spread evenly over its time, times the intensity then."""
    energy = emissions = unknown = 0.0
    segments = list(segments)
    exposures = grid.exposures([(segment.start, segment.end) for segment in segments])
    for segment, met in zip(segments, exposures, strict=True):
        span = segment.end - segment.start
        energy += segment.kwh
        if span <= timedelta(0):
            level = grid.at(segment.start)
            if level == level:
                emissions += segment.kwh * level
            else:
                unknown += segment.kwh
            continue
        emissions += segment.kwh * met.level_hours / (span / HOUR)
        unknown += segment.kwh * (met.unknown / span)
    return Account(energy, emissions, unknown)


def ledger(state: State, grid: Trace | None = None) -> Ledger:
    """Fold a state into its accounts, on the observed grid or on another, such as a settled one.

    An attempt's energy is divided evenly among its members.
    """
    grid = grid or state.history
    experiments = dict.fromkeys(state.standings, Account())
    wasted = reloaded = Account()
    sweep, begins = state.sweep, {0, *state.sweep.stages}
    sources: dict[str, float] = {}
    ends = [state.submitted_at]
    for attempt in state.attempts.values():
        account = charge(attempt.energy, grid)
        wasted += charge(_dropped(attempt), grid)
        if sweep.uneven:
            begins = {0, *sweep.stages_of(sweep.experiment(attempt.stint.members[0].experiment))}
        if attempt.first_step not in begins:
            reloaded += charge([s for s in _used(attempt) if s.step <= attempt.first_step], grid)
        for segment in attempt.energy:
            sources[segment.source] = sources.get(segment.source, 0.0) + segment.kwh
        share = 1.0 / len(attempt.stint.members)
        part = Account(account.energy_kwh * share, account.emissions_g * share, account.unknown_kwh * share)
        for member in attempt.stint.members:
            experiments[member.experiment] += part
        ends.append(attempt.ended_at or attempt.seen_at or attempt.requested_at)
    end = max(ends)
    training = sum(experiments.values(), Account())
    unused = idle_segments(state, end)
    idle = charge(unused, grid)
    spent = [segment for attempt in state.attempts.values() for segment in attempt.energy] + unused
    qualities = _by_quality(spent, training + idle, state.grid)
    return Ledger(experiments, training, idle, wasted, reloaded, state.submitted_at, end, sources, qualities)


def _by_quality(segments: list[Segment], total: Account, grid: Grid) -> dict[Quality, float]:
    """Return the energy by quality of the grid data, kWh; energy at unknown intensity is in none."""
    found = grid.qualities
    if len(found) == 1:
        return {found[0]: total.energy_kwh - total.unknown_kwh}
    return {quality: kwh for quality in found if (kwh := charge(segments, grid.of_quality(quality)).emissions_g) > 0}


def kept(attempt: Attempt, *, reload: bool) -> list[Segment]:
    """Return the segments whose work a result kept; after a `reload`, without those before the first new step."""
    return [s for s in _used(attempt) if s.step <= attempt.kept_step and not (reload and s.step <= attempt.first_step)]


def _used(attempt: Attempt) -> list[Segment]:
    """Return an attempt's energy; none of it if the attempt was paused or lost before it made a step that was kept."""
    interrupted = attempt.end in ("paused", "lost")
    return [] if interrupted and attempt.kept_step <= attempt.first_step else attempt.energy


def _dropped(attempt: Attempt) -> list[Segment]:
    if attempt.ended_at is None:
        return []
    return [s for s in _used(attempt) if s.step > attempt.kept_step] if _used(attempt) else attempt.energy


def idle_segments(state: State, end: datetime) -> list[Segment]:
    """Return the idle energy of every device, from the submission to the end."""
    segments = []
    for device in state.sweep.devices:
        if not device.idle_power_w:
            continue
        free = state.submitted_at
        runs = [a for a in state.attempts.values() if a.device == device.name]
        for start, stop in [*sorted((a.requested_at, a.ended_at or end) for a in runs), (end, end)]:
            if start > free:
                kwh = device.idle_power_w / 1000 * ((start - free) / HOUR)
                segments.append(Segment(free, start, kwh, "idle", 0))
            free = max(free, stop)
    return segments
