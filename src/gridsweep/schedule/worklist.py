"""The worklist: remaining steps in packs up to the next rung, and the stints expected after it.

Experiments at the same step that are not bound to different devices may be trained together. The experiments on their
way to a rung are split evenly into as few stints as `pack` allows, but over all devices: two devices share 21
experiments as 11 and 10. The work after a rung does not exist yet, and its experiments are unknown; their number is
known, so plans and deadlines count it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import heapify, heapreplace
from itertools import pairwise
from typing import NamedTuple, TypeVar

from gridsweep.carbon.traces import HOUR
from gridsweep.policy.situation import Work
from gridsweep.schedule.memo import kept_until
from gridsweep.schedule.pace import at_worst, overruns, reserve, scale
from gridsweep.state.standings import ALIVE, Standing
from gridsweep.state.state import State
from gridsweep.sweep.axes import shared_of
from gridsweep.sweep.experiments import Setting
from gridsweep.sweep.stints import RESTART, Device, Member
from gridsweep.sweep.sweep import Sweep
from gridsweep.sweep.tiers import Percentile, Tier

T = TypeVar("T")


class PackKey(NamedTuple):
    """What all members of a stint share: the step where it ends, the device if fixed, the seed (and so the order of the
    samples), the base, and the values of further axes that a stint has once, such as the batch size."""

    stage: int
    device: str | None
    seed: int
    base: str
    shared: tuple[tuple[str, Setting], ...]


NO_TIME = timedelta(0)
PROBES = 6
"""After so many ended stints, no stint starts only to show how long stints take."""
PROBE_SHARE = 0.1
"""A larger share of the remaining work is not started only to show how long stints take, unless it is a guess."""
UNSET = datetime.min.replace(tzinfo=UTC)


def waiting(state: State, now: datetime | None = None) -> list[Work]:
    """Return the remaining steps of all waiting experiments up to their next stage, in packs, by tier rank, age, id.

    Those that a user holds or has paused are not among them; those that are to start soon have no time to wait.
    """
    sweep, factor = state.sweep, scale(state, now)
    soon = state.asks.soon
    groups: dict[tuple[int, PackKey, bool], list[Standing]] = {}
    alive: dict[PackKey, int] = {}  # experiments on their way to a stage, or at it
    for standing in state.standings.values():
        kind = _pack_key(sweep, standing)
        if standing.status in ALIVE:
            alive[kind] = alive.get(kind, 0) + 1
        if standing.status == "waiting" and state.asks.why_not(standing.experiment.id) is None:
            groups.setdefault((standing.step, kind, standing.experiment.id in soon), []).append(standing)
    works = []
    for (step, kind, asked), standings in groups.items():
        size = size_of(sweep, alive, kind)
        standings.sort(key=lambda s: _order(sweep, s))
        for members in _dealt(standings, size):
            work = _work(sweep, members, step, kind.stage, factor)
            if asked:
                by = min(work.latest_start, *(soon[id].at for id in work.members))
                work = replace(work, latest_start=by, soon=True)
            works.append(work)
    works.sort(key=lambda work: work.order)
    return works


def _pack_key(sweep: Sweep, standing: Standing) -> PackKey:
    """Return what decides the pack of an experiment. Repeats skip the rungs: they are never stopped."""
    experiment = standing.experiment
    if experiment.repeats is not None:
        stage = sweep.total_of(experiment)
    else:
        stage = standing.step if standing.status == "reached" else sweep.next_stage(experiment, standing.step)
    return PackKey(stage, experiment.device, experiment.seed, experiment.base, shared_of(experiment.params))


def size_of(sweep: Sweep, alive: Mapping[PackKey, int], kind: PackKey) -> int:
    """Return the number of members per stint of a kind, given how many are `alive` of each.

    Those that differ from it in an axis want the same devices, and get their share of them.
    """
    rivals = 0
    if kind.shared:
        rivals = sum(count for other, count in alive.items() if other != kind and other.device == kind.device)
    return _size(sweep, alive[kind], kind.device, rivals)


@kept_until("work", "pace")
def remaining(state: State, now: datetime | None = None) -> list[Work]:
    """Return the waiting work; with a sweep deadline, no latest start is later than one that can meet it.

    The first in order may have to start earlier, to show how long stints take: see `probe_by`.
    """
    works = waiting(state, now)
    deadline = deadline_for(state, now)
    if deadline is not None and works:
        fastest = max(device.speed for device in state.sweep.devices)
        works = [replace(w, latest_start=min(w.latest_start, deadline - w.duration / fastest)) for w in works]
    probe = probe_by(state, works, now)
    if probe is not None:
        works[0] = replace(works[0], latest_start=min(works[0].latest_start, probe))
    return works


def probe_by(state: State, works: Sequence[Work], now: datetime | None = None) -> datetime | None:
    """Return when one stint has to start so that it tells in time how long all the waiting `works` take.

    By then the deadline still holds in the worst case that is not ruled out, if all else starts once that stint has
    ended. An estimate that is said to be a guess is tried at once, with or without a deadline. None if nothing is to be
    learned: a stint runs that has not taken longer than estimated, `PROBES` are known, or the stint is more than
    `PROBE_SHARE` of the work and so costs more than it tells.
    """
    sweep, known = state.sweep, len(state.paces)
    if sweep.follows_work or not works or known >= PROBES:
        return None
    if state.active and not (now and overruns(state, now)):
        return None
    if sweep.estimates.guess and not known:
        return state.submitted_at
    deadline = sweep.deadline(state.submitted_at)
    if deadline is None:
        return None
    fastest, stages = max(device.speed for device in sweep.devices), _stages_ahead(state, now)
    whole = sum((work.duration for part in (works, *stages) for work in part), NO_TIME)
    if works[0].duration > PROBE_SHARE * whole:
        return None
    after = makespan_of(works[1:], sweep.devices) + _in_a_row(stages, sweep)
    return max(state.submitted_at, deadline - at_worst(state, now) * (works[0].duration / fastest + after))


def ahead(state: State, now: datetime | None = None) -> list[Work]:
    """Return the stints expected after the next rung, each with a latest start that leaves room for later stints."""
    sweep, stages = state.sweep, _stages_ahead(state, now)
    if not stages:
        return []
    deadline = sweep.deadline(state.submitted_at)
    fastest = max(device.speed for device in sweep.devices)
    found: list[Work] = []
    latest = None if deadline is None else deadline - reserve(state, now)
    patience = max(tier.max_delay for tier in sweep.tiers)
    begun = max(s.ready_at for s in state.standings.values() if s.status in ALIVE)
    for i, works in enumerate(stages):
        if latest is not None:
            by = latest - _in_a_row(stages[i + 1 :], sweep)
            found += [replace(w, ready_at=begun, latest_start=by - w.duration / fastest) for w in works]
        else:
            found += [replace(w, ready_at=begun, latest_start=begun + (i + 2) * patience) for w in works]
    return found


def _stages_ahead(state: State, now: datetime | None = None) -> list[list[Work]]:
    """Return the work expected after the next rung, by stage; empty if no rung, repeat or retraining is to come."""
    sweep = state.sweep
    if sweep.rungs is None and sweep.repeats is None and not sweep.proxied:
        return []
    alive = [s for s in state.standings.values() if s.status in ALIVE and s.experiment.repeats is None]
    if not alive:
        again = any(s.status in ALIVE for s in state.standings.values()) and sweep.proxied and not sweep.retrained
        return [_foreseen(sweep, [1], 0, sweep.total_steps, scale(state, now))] if again else []
    last = min(alive, key=lambda s: sweep.level(s.experiment, s.step))
    reached = all(s.status == "reached" for s in alive)
    here = sweep.level(last.experiment, last.step if reached else sweep.next_stage(last.experiment, last.step))
    return _expected(state, int(here), len(alive), scale(state, now))


@kept_until("work")
def _expected(state: State, stage: int, alive: int, factor: float) -> list[list[Work]]:
    return expected(state.sweep, stage, alive, factor)


def _in_a_row(stages: Iterable[Sequence[Work]], sweep: Sweep) -> timedelta:
    """Return how long stages take one after another."""
    return sum((makespan_of(works, sweep.devices) for works in stages), NO_TIME)


def expected(sweep: Sweep, stage: int, alive: int, factor: float = 1.0) -> list[list[Work]]:
    """Return the stints of each stage after `stage`, if rungs keep their full number; times are unset."""
    found = []
    if sweep.rungs is not None:
        keeps = dict(zip(sweep.stages, sweep.rungs.keep, strict=False))
        for begin, end in pairwise(sweep.stages):
            if begin >= stage:
                alive = min(alive, keeps[begin] + len(sweep.rungs.keep_always))
                found.append(_foreseen(sweep, [alive], begin, end, factor))
    if sweep.repeats is not None:
        best = min(alive, sweep.repeats.finalists)
        found.append(_foreseen(sweep, [best] * (sweep.repeats.seeds - 1), 0, sweep.total_steps, factor))
    if sweep.proxied:
        found.append(_foreseen(sweep, [1], 0, sweep.total_steps, factor))
    return found


def _foreseen(sweep: Sweep, groups: Sequence[int], begin: int, end: int, factor: float) -> list[Work]:
    """Return the stints of a stage for groups of the given sizes; ready and start times are unset."""
    tier = min(sweep.tiers, key=lambda tier: tier.rank)
    restart = RESTART if begin else NO_TIME
    works: list[Work] = []
    for size in (len(part) for n in groups for part in _dealt(range(n), _size(sweep, n, None))):
        span = sweep.span(size, begin, end) * factor + restart
        kwh = span / HOUR * sweep.estimates.power_w / 1000
        works.append(Work(f"ahead-{end}-{len(works)}", tier, UNSET, UNSET, begin, end, span, kwh, None, restart))
    return works


def deadline_for(state: State, now: datetime | None = None) -> datetime | None:
    """Return when all existing work should have ended so that the sweep's deadline holds; None without one.

    This leaves room for durations that vary and for the stints after later rungs.
    """
    deadline = state.sweep.deadline(state.submitted_at)
    if deadline is None:
        return None
    return deadline - reserve(state, now) - _in_a_row(_stages_ahead(state, now), state.sweep)


@kept_until("sweep")
def submitted(state: State) -> list[Work]:
    """Return all the work as submitted, by the spec's estimates, including the work expected after rungs.

    Experiments that the sweep added itself do not count, whenever this is first asked for; a user's do.
    """
    added = {e.id for addition in state.additions if not addition.request for e in addition.experiments}
    sweep = state.sweep
    if added:
        sweep = replace(sweep, experiments=tuple(e for e in sweep.experiments if e.id not in added))
    fresh = _fresh(sweep, state.submitted_at)
    return [*remaining(fresh), *ahead(fresh)] if sweep.staged else waiting(fresh)


def stages_at_once(sweep: Sweep, start: datetime) -> list[list[Work]]:
    """Return all stints of a sweep by stage, as expected at its submission; times are set for the first stage only."""
    fresh = _fresh(sweep, start)
    return [waiting(fresh), *expected(sweep, sweep.stages[0], len(sweep.experiments))]


def staged_makespan(sweep: Sweep, start: datetime) -> timedelta:
    """Return the shortest makespan of a sweep, its stages one after another."""
    return _in_a_row(stages_at_once(sweep, start), sweep)


def _fresh(sweep: Sweep, start: datetime) -> State:
    """Return the state of a sweep of which nothing has begun."""
    fresh = State()
    fresh.sweep, fresh.submitted_at = sweep, start
    fresh.standings = {e.id: Standing(e, start) for e in sweep.experiments}
    return fresh


def makespan_of(works: Iterable[Work], devices: Sequence[Device]) -> timedelta:
    """Return how long the works take on the devices."""
    return makespan([work.duration for work in works], devices)


def makespan(spans: Sequence[timedelta], devices: Sequence[Device]) -> timedelta:
    """Return how long the spans (at speed 1) take on the devices: longest first, each on the first free device."""
    loads = [(NO_TIME, i) for i in range(len(devices))]
    heapify(loads)
    for span in sorted(spans, reverse=True):
        load, i = loads[0]
        heapreplace(loads, (load + span / devices[i].speed, i))
    return max(load for load, _ in loads)


def _size(sweep: Sweep, alive: int, device: str | None, rivals: int = 0) -> int:
    """Return the number of members per stint if `alive` experiments are on their way to the same stage.

    They are dealt over all devices, or over their share of them where `rivals` that cannot join them want them too.
    """
    devices = len(sweep.devices) if device is None else 1
    devices = max(1, round(devices * alive / (alive + rivals)))
    rounds = -(-alive // (max(1, sweep.pack) * devices))
    return max(1, -(-alive // (devices * rounds)))


def _dealt(all_: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split a sequence, in order, into parts of nearly equal length, none above `size`."""
    count = -(-len(all_) // size)
    edges = [len(all_) * i // count for i in range(count + 1)] if count else [0]
    return [all_[a:b] for a, b in pairwise(edges)]


def _order(sweep: Sweep, standing: Standing) -> tuple[int, datetime, str]:
    return (sweep.tier(standing.experiment.tier).rank, standing.ready_at, standing.experiment.id)


def _work(sweep: Sweep, members: Sequence[Standing], step: int, stage: int, factor: float) -> Work:
    tiers = [sweep.tier(s.experiment.tier) for s in members]
    restart = RESTART if step else NO_TIME
    parts = [Member(s.experiment.id, step, stage) for s in members]
    span = sweep.taken(parts) * factor + restart
    return Work(
        experiment=members[0].experiment.id,
        tier=tiers[0] if len(set(tiers)) == 1 else _strictest(tiers),
        ready_at=min(s.ready_at for s in members),
        latest_start=min(s.ready_at + tier.max_delay for s, tier in zip(members, tiers, strict=True)),
        from_step=step,
        to_step=stage,
        duration=span,
        energy_kwh=span / HOUR * sweep.estimates.power_w / 1000,
        device=members[0].experiment.device,
        restart=restart,
        others=tuple(s.experiment.id for s in members[1:]),
    )


def _strictest(tiers: Sequence[Tier]) -> Tier:
    """Combine tiers: the lowest limit, the best rank, the shortest delay."""

    def limit(tier: Tier) -> tuple[bool, float]:
        percentile = isinstance(tier.threshold, Percentile)
        return percentile, tier.threshold.percent if isinstance(tier.threshold, Percentile) else tier.threshold

    strict = min(tiers, key=limit)
    return replace(strict, rank=min(t.rank for t in tiers), max_delay=min(t.max_delay for t in tiers))
