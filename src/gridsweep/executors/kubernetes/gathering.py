"""What a gated sweep has done, as the events that a loop would have journaled: from its volume and from the cluster.

Under a gate no loop watches: kubectl applied the jobs, and another component starts them. The attempts' folders are
read by the same border as any worker's files (`handover.news`); their times are the workers' own. RayJobs and pods,
where there are some, say only what no file says: why work waits, whether a worker is alive, Compute Gardener's figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from os.path import lexists
from typing import Any  # a Kubernetes object

from gridsweep.accounting.compute_gardener import facts, gardened
from gridsweep.executors.handover import news, touched
from gridsweep.executors.kubernetes.api import JOBS, PODS, Api, NotFound
from gridsweep.executors.kubernetes.beginnings import Begun, Volume, moment, work_of
from gridsweep.executors.kubernetes.conditions import Condition, condition
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, COMPONENT, SWEEP, label_value
from gridsweep.executors.kubernetes.shelves import Shelf
from gridsweep.records.attempts import AttemptFolder
from gridsweep.records.attempts import now as wall_clock
from gridsweep.state.events import Decided, Event, Held, Pausing, Requested, Resumed, Reverted
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint
from gridsweep.sweep.sweep import Sweep

Object = dict[str, Any]

SETTLE = timedelta(minutes=1)
"""After a worker is gone, its last files may take this long to become visible through a network share."""
UNASKED = "no cluster was asked whether its pod is alive"
STOPPED = "its pod was asked to stop: its job was suspended, preempted or deleted, or its node drained"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster shows of a sweep: its RayJobs and their pods, by stint."""

    jobs: Mapping[str, Object]
    pods: Mapping[str, Sequence[Object]]

    @property
    def submitted(self) -> list[datetime]:
        """When the RayJobs were created."""
        stamps = (moment(str(job["metadata"].get("creationTimestamp", ""))) for job in self.jobs.values())
        return [stamp for stamp in stamps if stamp is not None]

    def facts(self, work: Mapping[str, str]) -> dict[str, str]:
        """Return Compute Gardener's figures on the pods, as a journal's facts; `work` is the experiment by stint."""
        found: dict[str, str] = {}
        for stint, pods in self.pods.items():
            for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
                if stint in work and (figures := gardened(pod["metadata"].get("annotations") or {})):
                    found |= facts(work[stint], figures)
        return found


def seen_in(api: Api, sweep: Sweep) -> Cluster:
    """Return what a cluster shows of a sweep; nothing where it knows no RayJobs."""
    selector = f"{SWEEP}={label_value(sweep.name)}"
    try:
        jobs, _ = api.list(JOBS, selector)
    except NotFound:
        jobs = []
    pods: dict[str, list[Object]] = defaultdict(list)
    # Pods are listed after the RayJobs, so that the pods of a RayJob that is gone are not missed.
    for pod in api.list(PODS, f"{selector},{COMPONENT}=worker")[0]:
        pods[_stint(pod)].append(pod)
    return Cluster({_stint(job): job for job in jobs}, dict(pods))


class Gathering:
    """Turns attempts and objects into events. Each list that is yielded must be folded before the next is taken.

    `cluster` is None if none was asked; with `ended` all workers are known to be gone. `settle` is how long after its
    last write a worker that is gone is taken at its files' word. `left` names the attempts that were left out, with the
    reason: those that the volume has told, and those that began after their experiment was done.
    """

    def __init__(
        self,
        state: State,
        shelf: Shelf,
        cluster: Cluster | None,
        now: datetime,
        gate: str,
        *,
        ended: bool = False,
        settle: timedelta = SETTLE,
    ):
        self.state, self.shelf, self.cluster, self.now = state, shelf, cluster, now
        self.gate, self.ended, self.settle = gate, ended, settle
        self.left: dict[str, str] = {}

    def events(self, volume: Volume) -> Iterator[list[Event]]:
        """Yield what is new: of the attempts in the order in which they began, then why experiments wait."""
        self.left = dict(volume.left)
        newest = {name.rpartition("/")[0]: int(name.rpartition("/")[2]) for name in self.state.attempts}
        for one in volume.begun:
            stint, _, number = one.name.rpartition("/")
            newest[stint] = max(newest.get(stint, 0), int(number))
        for one in volume.begun:
            if one.name not in self.state.attempts:
                if self.state.standings[one.experiment].status == "done":  # with files that were verified
                    done = self.state.standings[one.experiment].attempts[-1]
                    self.left[one.name] = f"its experiment was done before, by stints/{done}, whose result stands"
                    continue
                yield self._requested(one)
            stint, _, number = one.name.rpartition("/")
            if one.name in self.state.active:
                yield from self._followed(self.state.active[one.name], followed=newest[stint] > int(number))
        yield self._waiting()

    def _requested(self, one: Begun) -> list[Event]:
        """Return the beginning of an attempt, on a device that was free then; one more if none was."""
        state, events = self.state, list[Event]()
        standing = state.standings[one.experiment]
        if standing.status == "failed" or (standing.step, standing.checkpoint) != (one.from_step, one.checkpoint):
            where = f"step {one.from_step}" if one.from_step else "the beginning"
            why = f"its next worker went on from {where}"
            events.append(Reverted(one.at, one.experiment, one.checkpoint, why))
        at = max(one.at, state.submitted_at)
        devices = state.sweep.devices
        busy = {a.device for a in state.attempts.values() if a.requested_at <= at < (a.ended_at or self.now)}
        device = standing.experiment.device or next((d.name for d in devices if d.name not in busy), "")
        if not device:
            device = next(n for k in range(1, 2 + len(devices)) if (n := f"more{k}") not in {d.name for d in devices})
            more = (*devices, replace(devices[0], name=device))
            changes = (f"devices: {len(devices)} before, {len(more)} now: so many jobs ran at once",)
            events.append(Resumed(at, state.epoch, replace(state.sweep, devices=more), changes))
        stint = Stint((Member(one.experiment, one.from_step, state.sweep.total_of(standing.experiment)),))
        note = f"; {one.note}" if one.note else ""
        return [
            *events,
            Requested(at, one.name, stint, device, f"its job was started in the cluster (gate {self.gate}){note}"),
        ]

    def _followed(self, attempt: Attempt, *, followed: bool) -> Iterator[list[Event]]:
        """Yield what an attempt's files and its pod say; `followed`: a later attempt has begun, so this one is over."""
        folder, where = self.shelf.folder(attempt.id), self._condition(attempt)
        result = folder.result() if lexists(folder.path / "result.json") else None
        over, why = self._over(attempt, where, folder, followed=followed)
        if result is not None and attempt.pausing_since is None and any(o.status == "paused" for o in result.outcomes):
            aware = result.ended_at.tzinfo is not None
            yield [Pausing(min(self.now, result.ended_at) if aware else self.now, attempt.id, STOPPED)]
        while attempt.id in self.state.active:
            found = news(self.state, attempt, folder, self.now, ended=over, why=why)
            wrong = next((event.why for event in found if isinstance(event, Pausing)), "")
            events: list[Event] = [event for event in found if not isinstance(event, Pausing)]
            if not over:
                return (yield [*self._held(attempt, where, wrong), *events])
            if not events:
                return
            yield events

    def _over(
        self, attempt: Attempt, where: Condition | None, folder: AttemptFolder, *, followed: bool
    ) -> tuple[bool, str]:
        """Return whether an attempt has ended, and the reason for its loss if it left no result."""
        if lexists(folder.path / "result.json"):
            return True, where.why if where is not None and where.kind == "over" else ""
        if followed:
            return True, "its pod went away; a later one went on"
        if where is not None and where.kind == "over":
            return wall_clock() - touched(folder.path) > self.settle, where.why
        return self.ended, "its pod is gone, as `--ended` says"

    def _condition(self, attempt: Attempt) -> Condition | None:
        if self.cluster is None:
            return None
        stint = attempt.id.rpartition("/")[0]
        return condition(self.cluster.jobs.get(stint), self.cluster.pods.get(stint, ()), started=True)

    def _held(self, attempt: Attempt, where: Condition | None, wrong: str) -> list[Event]:
        """Return a `Held` event if what keeps an attempt from going on, or from being judged, has changed."""
        if wrong:
            by, why = "gridsweep", f"its files say what cannot be, and it will count as lost: {wrong}"
        elif where is None:
            by, why = "Kubernetes", UNASKED
        elif where.kind == "over":
            by, why = (
                "Kubernetes",
                "its pod has ended, and its last files may be on their way: collect again in a minute",
            )
        else:
            by, why = (where.by, where.why) if where.kind in ("waits", "leaves") else ("", "")
        return [Held(self.now, attempt.id, by, why)] if why != attempt.held.partition(": ")[2] else []

    def _waiting(self) -> list[Event]:
        """Return why experiments wait, where that has changed."""
        stints = {id: stint for stint, id in work_of(self.state.sweep).items()}
        waiting = [s for s in self.state.standings.values() if s.status == "waiting"]
        found = {
            s.experiment.id: self._reason(stints[s.experiment.id], s.reason, begun=bool(s.attempts)) for s in waiting
        }
        return [
            Decided(self.now, s.experiment.id, None, why) for s in waiting if (why := found[s.experiment.id]) != s.why
        ]

    def _reason(self, stint: str, lost: str, *, begun: bool) -> str:
        """Return why an experiment waits; `lost` is the reason for the loss of its last attempt, if it has one."""
        before = f"{lost}; " if lost else ""
        before += "".join(f"stints/{name}: {why}; " for name, why in self.left.items() if name.startswith(f"{stint}/"))
        if self.cluster is None:
            which = "no later attempt" if begun or before else "no attempt"
            return f"{before}{which} is on the volume; no cluster was asked"
        job, pods = self.cluster.jobs.get(stint), self.cluster.pods.get(stint, ())
        if job is None and not pods:
            return f"{before}it has no RayJob: {'deleted, or expired' if begun else 'not applied, or deleted'}"
        where = condition(job, pods, started=False)  # no attempt of it is under way
        if where.kind == "over":
            return f"its RayJob ended and is not started again: {lost or where.why}"
        if where.kind == "runs":
            return f"{before}its pod runs, and its worker has not begun"
        return f"{before}held by {where.by}: {where.why}"


def _stint(made: Object) -> str:
    return str((made["metadata"].get("annotations") or {}).get(ATTEMPT, "")).rpartition("/")[0]
