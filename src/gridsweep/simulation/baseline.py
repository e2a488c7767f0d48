"""The baseline: the same work run at once, on the same devices with the same energy."""

from __future__ import annotations

from dataclasses import replace

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.accounting.pieces import Profile, joined, stages_of
from gridsweep.carbon.readings import Provenance
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Observations
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.sweep import Sweep


def baseline(state: State) -> tuple[State, Ledger] | None:
    """The same work run at once: same devices, same energy, the intensities that were observed.

    Of every experiment that has ended: its pieces up to each rung are joined into one run, keeping energy by elapsed
    time, on the device it ended on where devices differ or nothing is packed; pauses, reloads and lost attempts count
    only in the actual world. What a rung stopped is stopped there, what joined later joins after the same step. None
    before anything has ended.
    """
    sweep = state.sweep
    profiles: dict[tuple[str, int], Profile] = {}
    stopped: dict[str, int] = {}
    experiments: dict[str, Experiment] = {}
    alike = len({(d.speed, d.power_w) for d in sweep.devices}) == 1
    for id, standing in state.standings.items():
        attempts = [state.attempts[a] for a in standing.attempts]
        if standing.ended_at is None or not attempts:
            continue
        stages = {stage for attempt in attempts for stage in stages_of(attempt, id)}
        for stage in stages:
            profiles[id, stage] = joined([attempt for attempt in attempts if stage in stages_of(attempt, id)])
        if max(stages) < sweep.total_steps:
            stopped[id] = max(stages)
        free = alike and sweep.staged
        device = standing.experiment.device if free else attempts[-1].device
        experiments[id] = replace(standing.experiment, device=device)
    if not experiments:
        return None
    rungs = sweep.rungs and replace(sweep.rungs, keep=tuple(len(state.standings) + n for n in _falling(sweep)))
    joined_at = {e.id: event.after for event in state.additions for e in event.experiments}
    first = tuple(e for id, e in experiments.items() if id not in joined_at)
    later = {
        step: tuple(e for id, e in experiments.items() if joined_at.get(id) == step) for step in set(joined_at.values())
    }
    other = replace(sweep, experiments=first, finish_by=None, rungs=rungs, repeats=None, propose=None)
    seen = Observations(state.history, Provenance("observed"))
    executor = Simulated(profiles, stopped=stopped)
    made = rehearse(other, state.submitted_at, seen, Immediate(), executor, foreseen=later)
    return made, ledger(made)


def _falling(sweep: Sweep) -> range:
    """Numbers to keep that stop nobody."""
    return range(len(sweep.stages), 1, -1)
