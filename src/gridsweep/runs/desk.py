"""The desk of a run: requests of users become facts, or are refused for a reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from gridsweep.errors import GridsweepError, SpecError, printable
from gridsweep.executors.environment import added as variables
from gridsweep.policy.registry import policy_for
from gridsweep.policy.situation import Policy
from gridsweep.records import codec, requests
from gridsweep.records.facts import text_of
from gridsweep.records.requests import EARLIEST, LATEST, Found, Request
from gridsweep.runs.amendments import amendments
from gridsweep.schedule.capacity import check_remaining
from gridsweep.schedule.worklist import staged_makespan
from gridsweep.selection.proposers import Proposers
from gridsweep.selection.registry import proposers_for
from gridsweep.spec.axes import KINDS
from gridsweep.spec.file import DeviceSection, PolicySection
from gridsweep.spec.rungs import MOST_PACKED
from gridsweep.spec.values import LONGEST, Limit
from gridsweep.state.asks import ALL
from gridsweep.state.events import Added, Event
from gridsweep.state.standings import ALIVE
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.axes import AXES
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.identity import MOST_NAMED, experiment_id, some
from gridsweep.sweep.sweep import PolicyChoice, Sweep
from gridsweep.sweep.tiers import Percentile


class Desk:
    """Takes the requests in a run's `state` folder; `began` is the wall time at which the run began."""

    def __init__(self, state: Path, began: datetime):
        self._state, self._began = state, began
        self._name = ""
        self._answered: set[str] = set()  # also what can neither be removed nor put aside

    def called(self) -> bool:
        """Return whether a request waits."""
        return bool(self._waiting())

    def take(self, state: State, now: datetime) -> Sequence[Event]:
        """Return what the oldest request leads to; nothing for one that was taken before, by a run that was killed.

        One at a time: each is judged by what the ones before it have changed.
        """
        self._name = next(iter(self._waiting()), "")
        if not self._name or requests.id_of(self._name) in state.asks.taken:
            return []
        found = requests.read(self._state, self._name)
        events = judged(state, found, now, self._began)
        try:
            for event in events:
                text_of(event)
        except GridsweepError as error:  # none may end the run, and every later one
            refused = f"it holds what no journal can keep ({printable(str(error)).splitlines()[0][:200]})"
            return [Asked(now, found.id, "unknown", found.by, found.asked_at, refused=refused)]
        return events

    def answered(self) -> None:
        """Remove the file of the request that was taken."""
        if self._name:
            self._answered.add(self._name)
            with suppress(OSError):  # it is in the journal, and so it is not taken again
                requests.clear(self._state, self._name)

    def chosen(self, sweep: Sweep) -> tuple[Policy, Proposers | None]:
        """Return policy and proposers for a sweep that was changed."""
        return policy_for(sweep.policy), proposers_for(sweep)

    def _waiting(self) -> list[str]:
        return [name for name in requests.left(self._state) if name not in self._answered]


def judged(state: State, found: Found, now: datetime, began: datetime) -> list[Event]:
    """Return a request as a fact, with the experiments that it adds; `began` is the wall time of the run's beginning.

    A request that does not fit the sweep as it is now is refused for a reason, and changes nothing.
    """
    asked = Asked(now, found.id, "unknown", found.by, found.asked_at, refused=found.unfit)
    request = found.request
    if request is None:
        return [asked]
    asked = replace(
        asked, what=request.what, asked_at=request.asked_at, experiments=request.experiments, until=request.until
    )
    named = tuple(_plain(id) for id in request.experiments[:MOST_NAMED])
    asked = replace(asked, soon=request.soon and request.what in ("release", "resume"))
    if refused := _unfit(state, request, now, began):
        return [replace(asked, experiments=named, until=None, soon=False, refused=refused)]
    if request.what != "add":
        return [asked]
    try:
        changed, new = added(state, request)
        changes = tuple(amendments(state.sweep, changed))
        _sound(replace(changed, experiments=(*changed.experiments, *new)), now)
        check_remaining(state, changed, new, now)
    except GridsweepError as error:
        return [replace(asked, refused=str(error))]
    moved = tuple(e for e in changed.experiments if e != state.standings[e.id].experiment)
    asked = replace(asked, sweep=replace(changed, experiments=moved), changes=changes)
    why = f"added by {found.by}"
    return [asked, *([Added(now, 0, new, why, found.id)] if new else [])]


def added(state: State, request: Request) -> tuple[Sweep, tuple[Experiment, ...]]:
    """Return the sweep that a request to add asks for, without what is new, and the new experiments.

    Raise `SpecError` if an experiment is not one of this sweep's.
    """
    if request.sweep is None:
        raise SpecError("it names no sweep")
    sweep, moved = state.sweep, {e.id: e for e in request.sweep.experiments}
    bases = {e.base for e in sweep.experiments if e.repeats is None}
    new = tuple(e for e in request.added if e.id not in state.standings)
    for experiment in request.added:
        there = state.standings.get(experiment.id)
        if there is not None and there.experiment != replace(
            experiment, tier=there.experiment.tier, reason=there.experiment.reason
        ):
            raise SpecError(f"{_plain(experiment.id)} is another experiment in the sweep")
    for experiment in new:
        _axes_known(sweep, experiment)
        same = experiment_id(
            experiment.params, experiment.seed, sweep.model, sweep.dataset, sweep.recipe, experiment.base
        )
        if same != experiment.id or experiment.base not in bases or experiment.repeats is not None:
            raise SpecError(f"{_plain(experiment.id)} is not an experiment of this model, data and recipe")
    if len({e.id for e in new}) < len(new):
        raise SpecError("it adds an experiment twice")
    if replace(sweep, experiments=(*sweep.experiments, *new)).decides != sweep.decides:
        raise SpecError("it adds a learning-rate schedule by which rungs would be decided by another loss than so far")
    if unknown := [_plain(id) for id in moved if id not in state.standings]:
        raise SpecError(f"the sweep has no experiment {some(unknown)}")
    return replace(request.sweep, experiments=tuple(moved.get(e.id, e) for e in sweep.experiments)), new


def _axes_known(sweep: Sweep, experiment: Experiment) -> None:
    """Raise `SpecError` if what an experiment varies is no key of a recipe, or no value of one."""
    for key, value in experiment.params.more:
        if key not in AXES:
            raise SpecError(f"{_plain(experiment.id)} varies {_plain(key)}, which is no axis")
        try:
            KINDS[key].read(value)
        except ValueError as error:
            raise SpecError(f"{_plain(experiment.id)} is no experiment: {key} {error}") from None


def _unfit(state: State, request: Request, now: datetime, began: datetime) -> str:
    """Return why a request does not fit; "" if it does."""
    if unknown := [_plain(id) for id in request.experiments if id not in state.standings]:
        return f"the sweep has no experiment {some(unknown)}"
    what, ids = request.what, request.experiments
    if what in ("pause", "cancel", "hold", "resume", "release"):
        again = state.asks.cancelled if what == "cancel" else {}
        over = [id for id in ids if state.standings[id].status not in ALIVE and id not in again]
        if over:
            ended = [f"{id} has ended ({state.standings[id].status})" for id in over]
            return f"{some(ended)}; nothing was changed"
        if not ids and what in ("pause", "hold") and not state.left:
            return f"all experiments have ended, and there is nothing to {what}; `gridsweep add` adds some"
    if what in ("resume", "release") and request.soon and ids:
        rest = state.asks.held if what == "resume" else state.asks.paused
        asked = next((rest[target] for target in (ALL, *ids) if target in rest), None)
        asked = asked or (state.asks.paused if what == "resume" else state.asks.held).get(ALL)
        if asked is not None:
            undo = "resume" if asked.what == "pause" else "release"
            whole = " the whole sweep" if not asked.experiments else ""
            return f"{asked.by} asked to {asked.what}{whole}, so nothing could start now; `gridsweep {undo}` first"
    if request.until is not None and what != "hold":
        return f"only a hold has an end; {what} takes no until"
    if what == "cancel" and not ids:
        return "it names no experiment; `gridsweep stop` ends the run and keeps all that is left to do"
    if what == "hold" and request.until is not None and request.until <= now:
        return f"{request.until:%Y-%m-%d %H:%M} UTC is past: the sweep's time is {now:%Y-%m-%d %H:%M} UTC"
    if what == "stop" and request.asked_at < began:
        return "it was asked before this run began"
    return "it asks for nothing that is known" if what == "unknown" else ""


def _sound(sweep: Sweep, now: datetime) -> None:
    """Raise `SpecError` for a sweep that cannot be planned; a spec that was read has been checked for more."""
    _bounded(sweep)
    policy_for(sweep.policy)
    proposers_for(sweep)
    if sweep.executor.name == "local":
        variables(os.environ, sweep)
    names, devices = {tier.name for tier in sweep.tiers}, {device.name for device in sweep.devices}
    tiers = {e.tier for e in sweep.experiments} - names
    bound = {e.device for e in sweep.experiments} - {None} - devices
    if tiers or bound:
        what = "tier" if tiers else "device"
        raise SpecError(
            f"there is no {what} {some(sorted(map(str, tiers or bound)))}, which experiments of the sweep are bound to",
            remedy=f"keep that {what} in the spec",
        )
    if len(devices) != len(sweep.devices):
        raise SpecError("two of its devices have the same name")
    try:
        staged_makespan(sweep, now)
    except (ArithmeticError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise SpecError(f"it cannot be planned ({type(error).__name__}: {error})") from None


def _bounded(sweep: Sweep) -> None:
    """Raise `SpecError` for a value that no spec could hold: a request need not have been read from one."""
    if not sweep.devices or not sweep.tiers:
        raise SpecError("it names no device or no tier")
    for device in sweep.devices:
        try:
            DeviceSection.model_validate(asdict(device))
        except ValueError as error:
            why = codec.first(error) if isinstance(error, ValidationError) else str(error)
            raise SpecError(f"device {_plain(device.name)!r}: {why}") from None
    for tier in sweep.tiers:
        limit = str(tier.threshold) if isinstance(tier.threshold, Percentile) else tier.threshold
        try:
            Limit().read(limit)
        except ValueError as error:
            raise SpecError(f"tier {_plain(tier.name)!r}: threshold {error}") from None
        if not timedelta(0) <= tier.max_delay <= LONGEST or tier.name != _plain(tier.name) or not tier.name:
            raise SpecError(f"tier {_plain(tier.name)!r}: its name or its max_delay is none that a spec could hold")
    if len({tier.rank for tier in sweep.tiers}) < len(sweep.tiers):
        raise SpecError("two of its tiers have the same rank")
    by = sweep.finish_by
    span, moment = (by if isinstance(by, timedelta) else None), (by if isinstance(by, datetime) else None)
    if span is not None and not timedelta(0) < span <= LONGEST:
        raise SpecError(f"finish_by must be above 0 and at most {LONGEST.days}d")
    if moment is not None and (moment.tzinfo is None or not EARLIEST <= moment <= LATEST):
        raise SpecError(f"finish_by must have a time zone, and be between {EARLIEST:%Y} and {LATEST:%Y}")
    if not 1 <= sweep.pack <= MOST_PACKED:
        raise SpecError(f"pack must be from 1 to {MOST_PACKED:,}")
    if why := _unfit_policy(sweep.policy):
        raise SpecError(f"policy: {why}")


def _unfit_policy(policy: PolicyChoice) -> str:
    """Return what is wrong with a policy's options, which the journal keeps as numbers; "" if nothing is."""
    options: dict[str, float] = dict(policy.options)
    for _ in range(2):
        try:
            PolicySection.model_validate({policy.name: options})
            return ""
        except ValidationError as error:
            flags = {str(fault["loc"][-1]) for fault in error.errors()} & {k for k, v in options.items() if v in (0, 1)}
            why = codec.first(error)
            options |= {key: bool(options[key]) for key in flags}
    return why


def _plain(text: str) -> str:
    """Return somebody's text on one line, cut, without what a terminal would obey."""
    return " ".join(printable(text).split())[:64]
