"""What was possible for a sweep from a start instant, had all been known beforehand: a back-test's certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from gridsweep.carbon.traces import Trace
from gridsweep.errors import DeadlineError, SpecError
from gridsweep.loop import Provider
from gridsweep.optima import Job, Optimum, bound
from gridsweep.schedule.worklist import makespan, stages_at_once
from gridsweep.sweep.sweep import Sweep


def optimum(
    sweep: Sweep, comes: Trace, start: datetime, factors: Mapping[str, float] | None = None, *, pausing: bool = False
) -> Optimum | None:
    """The least a sweep could emit on what comes, with its devices and deadlines, pausing for nothing or never.

    None where they cannot all be kept, where an hour up to them is unknown, or where no solver is installed for it.
    """
    if sweep.staged:
        return _optimum_of_stages(sweep, comes, start, pausing=pausing)
    power = sweep.estimates.power_w
    devices = [replace(d, power_w=power if d.power_w is None else d.power_w) for d in sweep.devices]
    delays = {tier.name: tier.max_delay for tier in sweep.tiers}
    took = {e.id: sweep.estimates.duration * (factors or {}).get(e.id, 1.0) for e in sweep.experiments}
    jobs = [Job(e.id, took[e.id], start + delays[e.tier], device=e.device) for e in sweep.experiments]
    try:
        return bound(jobs, devices, comes, start, pausing=pausing, finish_by=sweep.deadline(start))
    except (DeadlineError, SpecError):
        return None


def _optimum_of_stages(sweep: Sweep, comes: Trace, start: datetime, *, pausing: bool) -> Optimum | None:
    """No more than a sweep of packs and rungs could emit at least: a stage may begin when the one before it could end.

    That it must not begin sooner than the one before it did end is left out, so that nobody can do better.
    """
    power = sweep.estimates.power_w
    devices = [replace(d, power_w=power if d.power_w is None else d.power_w) for d in sweep.devices]
    stages = stages_at_once(sweep, start)
    deadline = sweep.deadline(start)
    jobs: list[Job] = []
    ready = start
    for i, works in enumerate(stages):
        spans = [work.training for work in works]
        later = sum((makespan([w.training for w in others], devices) for others in stages[i + 1 :]), timedelta(0))
        for n, (work, span) in enumerate(zip(works, spans, strict=True)):
            by = work.latest_start if i == 0 else ready + max(tier.max_delay for tier in sweep.tiers) * (i + 1)
            if deadline is not None:
                by = min(by, deadline - later - span / max(device.speed for device in devices))
            jobs.append(Job(f"{i}-{n}", span, by, ready, device=work.device))
        ready += makespan(spans, devices)
    try:
        return replace(bound(jobs, devices, comes, start, pausing=pausing, finish_by=deadline), proven=False)
    except (DeadlineError, SpecError):
        return None


def what_comes(sweep: Sweep, provider: Provider, start: datetime) -> Trace:
    """What comes until a sweep should long have ended, and the weeks before, as far as the trace goes."""
    work = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    delay = max(tier.max_delay for tier in sweep.tiers)
    return provider.read(max(start + delay, sweep.deadline(start) or start) + 2 * work + timedelta(days=1)).history
