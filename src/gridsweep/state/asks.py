"""What users have asked of a sweep: what is paused, held back, to start soon, or cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from gridsweep.state.standings import Standing
from gridsweep.state.wishes import Asked
from gridsweep.sweep.sweep import Sweep

ALL = ""
"""Stands for the whole sweep, among the ids of experiments."""


@dataclass(slots=True)
class Asks:
    """The requests taken so far by id, and what is in force; `ALL` or an experiment's id says for what."""

    taken: dict[str, Asked] = field(default_factory=dict)
    paused: dict[str, Asked] = field(default_factory=dict)
    held: dict[str, Asked] = field(default_factory=dict)
    soon: dict[str, Asked] = field(default_factory=dict)
    cancelled: dict[str, Asked] = field(default_factory=dict)
    stop: str = ""

    def take(self, event: Asked, sweep: Sweep, standings: Mapping[str, Standing]) -> Sweep:
        """Put a request in force; return the sweep as it is from now on. Raise `KeyError` for an unknown experiment."""
        self.taken[event.id] = event
        if event.refused:
            return sweep
        for id in event.experiments:
            standings[id]  # a request of another sweep does not fit
        targets = event.experiments or (ALL,)
        match event.what:
            case "stop":
                self.stop = f"stopped by {event.by}"
            case "pause":
                self.paused |= dict.fromkeys(targets, event)
            case "hold":
                self.held |= dict.fromkeys(targets, event)
            case "resume":
                self._end(self.paused, targets)
            case "release":
                self._end(self.held, targets, alone=event.until is not None)
            case "cancel":
                self.cancelled |= dict.fromkeys(event.experiments, event)
                self.settle(standings, event.experiments, event.at)
            case "add":
                return self._changed(event, sweep, standings)
        if event.soon:
            there = event.experiments or tuple(standings)
            waits = [id for id in there if standings[id].status in ("waiting", "reached")]
            self.soon |= dict.fromkeys(waits, event)
        return sweep

    def settle(self, standings: Mapping[str, Standing], experiments: Iterable[str], at: datetime) -> None:
        """End the cancelled ones of some experiments, unless a worker still trains them or they ended by themselves."""
        for id in experiments:
            if id in self.cancelled and (standing := standings[id]).status in ("waiting", "reached"):
                standing.status, standing.ended_at = "cancelled", at
                standing.reason = f"cancelled by {self.cancelled[id].by}"

    def started(self, experiments: Iterable[str]) -> None:
        """Forget what was to start soon and has."""
        for id in experiments:
            self.soon.pop(id, None)

    def why_not(self, id: str) -> Asked | None:
        """Return the request for which an experiment must not start now; None if there is none."""
        if not (self.paused or self.held):
            return None  # as in nearly every look, at each of thousands
        found = (self.paused.get(ALL), self.paused.get(id), self.held.get(ALL), self.held.get(id))
        return next(filter(None, found), None)

    def ending(self, experiments: Iterable[str]) -> str:
        """Return why the attempt of these experiments is to stop at a checkpoint; "" if it may go on."""
        for id in (ALL, *experiments):
            if event := self.paused.get(id) or self.cancelled.get(id):
                return f"{event.what}{'led' if event.what == 'cancel' else 'd'} by {event.by}"
        return ""

    def _end(self, among: dict[str, Asked], targets: Iterable[str], *, alone: bool = False) -> None:
        """End what is in force for some targets; for `ALL` that of each experiment too, unless `alone`."""
        for id in targets:
            among.pop(id, None)
            if id == ALL and not alone:
                among.clear()

    def _changed(self, event: Asked, sweep: Sweep, standings: Mapping[str, Standing]) -> Sweep:
        assert event.sweep is not None
        for experiment in event.sweep.experiments:
            standings[experiment.id].experiment = experiment
        return replace(event.sweep, experiments=tuple(standing.experiment for standing in standings.values()))
