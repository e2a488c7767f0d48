"""The optimum of a sweep from a start instant with perfect knowledge: the certificate of a back-test."""

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
    """Return the optimum of a sweep on the trace `comes`, with its devices and deadlines; pauses are free or absent.

    None if the deadlines cannot all be met, an hour before them is unknown, or the solver is not installed.
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
    """Return a lower bound for a sweep with packs and rungs: a stage may begin when the one before it could end.

    In reality a stage begins when the one before it did end; ignoring this keeps the result a lower bound.
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
    """Return the trace up to well after the sweep's end, with its history, as far as the provider's trace goes."""
    work = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    delay = max(tier.max_delay for tier in sweep.tiers)
    return provider.read(max(start + delay, sweep.deadline(start) or start) + 2 * work + timedelta(days=1)).history
