"""Sweeps driven in virtual worlds, and the other history that a saving is measured against."""

from __future__ import annotations

from datetime import datetime

from gridsweep.loop import Provider, drive
from gridsweep.policy.situation import Policy
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Event, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.sweep import Sweep


def rehearse(
    sweep: Sweep,
    start: datetime,
    provider: Provider,
    policy: Policy,
    executor: Simulated | None = None,
    journal: list[Event] | None = None,
    foreseen: dict[int, tuple[Experiment, ...]] | None = None,
) -> State:
    """Drive a sweep in a virtual world from its submission to its end.

    `foreseen` says which experiments are known to join it, and after which step; None leaves that to the sweep.
    """
    journal = [] if journal is None else journal
    submitted = Submitted(start, sweep)
    journal.append(submitted)
    state = State([submitted])
    state.foreseen = foreseen
    return drive(state, journal, Virtual(start, provider, executor or Simulated()), policy)
