"""What a worker may say: each function returns what is wrong with a line or a result, "" if nothing is.

A worker runs a model and a library stack, perhaps on another machine: what it writes is a claim until it is judged
here. Nothing is corrected: an attempt whose worker says what cannot be is lost, with the claim as the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

from gridsweep.errors import printable
from gridsweep.records.attempts import EnergyLine, Progress, Result
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Checkpoint, Member, Outcome

PLAUSIBLE_KW = 20.0
"""More than one worker's devices and their host draw: a node of eight of the largest GPUs takes about 10 kW."""
ALLOWED = timedelta(minutes=5)
"""How far clocks may differ, and how much longer than the wall time a worker may say that something took."""
SAMPLED_S = 1.0
"""An energy counter moves in steps: a short time may hold the energy of a longer one, up to this many seconds."""
LARGEST = 1e30
"""No loss is larger; sums of such numbers are finite."""
AGREES = 1e-3
"""How far a loss may be from the mean of its parts, relative: both are sums of many small numbers."""
FORMAT = 1
"""The format of results."""
LONGEST, MANY = 10_000, 1_000
"""The most characters of a text, and the most texts."""
IDLE = "it paused by itself before a new step was saved"


@dataclass(frozen=True, slots=True)
class Work:
    """What an attempt was asked for, by which its worker's claims are judged.

    `given` are the checkpoints that the members began with; `lasted` is the wall time since the attempt was requested,
    `drawn_kwh` the energy told so far, up to the step `drawn_to`; `asked` says whether it was asked to pause. `samples`
    are the token counts of the samples that earlier outcomes were judged on, by status and field: all experiments share
    them.
    """

    attempt: str
    members: Mapping[str, Member]
    total_steps: int
    given: Mapping[str, Checkpoint]
    lasted: timedelta
    drawn_kwh: float = 0.0
    drawn_to: int = 0
    asked: bool = False
    samples: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, int]:
        """The first and the last step of any member."""
        return min(m.from_step for m in self.members.values()), max(m.to_step for m in self.members.values())

    @property
    def longest_s(self) -> float:
        """How long anything within the attempt can have taken, seconds."""
        return max(0.0, self.lasted.total_seconds()) + ALLOWED.total_seconds()

    def path(self, kind: str, experiment: str, step: int | None = None) -> str:
        """Return where a member's adapter or checkpoint is, relative to the store."""
        return "/".join(["stints", self.attempt, kind, *([] if step is None else [str(step)]), experiment])


def of_progress(line: Progress, work: Work) -> str:
    """Return what is wrong with a line of progress."""
    if wrong := _time("at", line.at) or _step(line.step, work):
        return wrong
    if strangers := line.losses.keys() - work.members.keys():
        return f"it has a loss of {_short(min(strangers))}, which is no member of the attempt"
    losses = (_loss(f"the loss of {id}", loss) for id, loss in line.losses.items() if loss is not None)
    return next(filter(None, losses), "") or _texts(
        "constants", [text for pair in (line.constants or {}).items() for text in pair]
    )


def of_energy(line: EnergyLine, work: Work) -> str:
    """Return what is wrong with a line of energy; `work` knows what the lines before it told."""
    if wrong := _time("start", line.start) or _step(line.step, work) or _texts("source", [line.source]):
        return wrong
    if not 0 <= line.seconds <= work.longest_s:
        return f"seconds is {line.seconds:g}, and the attempt has lasted {work.lasted.total_seconds():.0f} s"
    most = min(PLAUSIBLE_KW * (line.seconds + SAMPLED_S), PLAUSIBLE_KW * work.longest_s - work.drawn_kwh * 3600) / 3600
    if not 0 <= line.kwh <= most:
        return f"kwh is {line.kwh:g} in {line.seconds:g} s; at most {PLAUSIBLE_KW:g} kW are plausible"
    if line.step < work.drawn_to:
        return f"step is {line.step} after step {work.drawn_to}; lines are repeated or out of order"
    return ""


def of_result(result: Result, work: Work) -> str:
    """Return what is wrong with a result, without a look at the files that it names."""
    if result.schema_version != FORMAT:
        return f"it has format {result.schema_version}, and this gridsweep reads {FORMAT}; use one version for both"
    if wrong := _time("ended_at", result.ended_at) or _texts("facts", result.facts or {}):
        return wrong
    if result.error:
        return ""
    told = [outcome.experiment for outcome in result.outcomes]
    if strangers := set(told) - work.members.keys():
        return f"it has an outcome of {_short(min(strangers))}, which is no member of the attempt"
    if missing := work.members.keys() - set(told):
        return f"it has no outcome of {min(missing)}"
    if len(told) != len(work.members):
        return "it has two outcomes of one experiment"
    found = next(filter(None, (_outcome(outcome, work) for outcome in result.outcomes)), "") or _judged(result, work)
    return found or ("" if work.asked or any(_moved(outcome, work) for outcome in result.outcomes) else IDLE)


def told_plainly(result: Result) -> Result:
    """Return a result whose texts hold no control characters and are not endless."""
    outcomes = tuple(replace(outcome, reason=plain(outcome.reason)) for outcome in result.outcomes)
    facts = {plain(name): plain(text) for name, text in (result.facts or {}).items()}
    return replace(result, outcomes=outcomes, error=plain(result.error), facts=facts)


def plain(text: str) -> str:
    """Return a worker's text as it may be shown: printable, and cut where it is too long."""
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


def _moved(outcome: Outcome, work: Work) -> bool:
    return outcome.status != "paused" or outcome.step > work.members[outcome.experiment].from_step


def _outcome(outcome: Outcome, work: Work) -> str:
    """Return what is wrong with one member's outcome."""
    id, member, status = outcome.experiment, work.members[outcome.experiment], outcome.status
    ends = {"done": work.total_steps, "reached": member.to_step}
    if status not in ("done", "reached", "paused", "failed"):
        return f"{id} is {status}, which no worker decides"
    if not member.from_step <= outcome.step <= member.to_step:
        return f"{id} is at step {outcome.step}, outside of {member.from_step} to {member.to_step}"
    if status in ends and (
        outcome.step != ends[status] or (status == "reached") != (member.to_step < work.total_steps)
    ):
        return f"{id} is {status} at step {outcome.step} of {work.total_steps}; it was to get to {member.to_step}"
    return _saved(outcome, member, work) or _scores(outcome)


def _saved(outcome: Outcome, member: Member, work: Work) -> str:
    """Return what is wrong with where an outcome's files are said to be."""
    id, saved = outcome.experiment, outcome.checkpoint
    if outcome.status == "done" and outcome.adapter != work.path("adapters", id):
        return f"the adapter of {id} is said to be {_short(outcome.adapter or 'nowhere')}, outside of its place"
    if saved is None:
        needed = outcome.status == "reached" or (outcome.status == "paused" and outcome.step > member.from_step)
        return f"{id} is {outcome.status} at step {outcome.step} without a checkpoint" if needed else ""
    if saved == work.given.get(id):
        return "" if outcome.step == saved.step else f"{id} is at step {outcome.step}, and saved at {saved.step}"
    if (saved.experiment, saved.step, saved.path) != (id, outcome.step, work.path("checkpoints", id, outcome.step)):
        return f"the checkpoint of {id} is said to be {_short(saved.path)} of step {saved.step}, outside of its place"
    return ""


def _scores(outcome: Outcome) -> str:
    """Return what is wrong with an outcome's losses."""
    id = outcome.experiment
    for name, value in values(outcome).items():
        if isinstance(value, float) and (wrong := _loss(f"{name} of {id}", value)):
            return wrong
        if isinstance(value, Losses) and not all(0 <= number <= LARGEST for number in (*value.values, *value.tokens)):
            return f"{name} of {id} are not all finite and positive"
    if outcome.losses is not None and outcome.status == "done" and outcome.validation_loss is not None:
        mean = outcome.losses.mean
        if abs(mean - outcome.validation_loss) > AGREES * max(1.0, mean):
            return f"validation_loss of {id} is {outcome.validation_loss:g}, and the mean of its losses is {mean:g}"
    if outcome.status == "done" and outcome.validation_loss is None:
        return f"{id} is done without a validation loss"
    if outcome.status == "reached" and outcome.losses is None and outcome.train_loss is None:
        return f"{id} is at a rung without a loss"
    return ""


def _judged(result: Result, work: Work) -> str:
    """Return which outcome was judged on other samples than the others."""
    seen = dict(work.samples)
    for outcome in result.outcomes:
        for what, tokens in samples(outcome).items():
            if seen.setdefault(what, tokens) != tokens:
                return f"{what[1]} of {outcome.experiment} are over other samples than those of other experiments"
    return ""


def samples(outcome: Outcome) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return the token counts of the samples that an outcome was judged on, by its status and the field."""
    losses = {name: value for name, value in values(outcome).items() if isinstance(value, Losses)}
    return {(outcome.status, name): value.tokens for name, value in losses.items()}


def values(outcome: Outcome) -> dict[str, object]:
    return {field.name: getattr(outcome, field.name) for field in fields(Outcome)}


def _step(step: int, work: Work) -> str:
    first, last = work.steps
    return "" if first <= step <= last else f"step is {step}, and the attempt makes {first} to {last}"


def _time(name: str, at: datetime) -> str:
    if at.tzinfo is None:
        return f"{name} is {at.isoformat()}, without a time zone"
    return "" if 1971 <= at.year <= 9000 else f"{name} is {at.isoformat()}"


def _loss(name: str, value: float) -> str:
    """A cross-entropy is never negative."""
    return "" if 0 <= value <= LARGEST else f"{name} is {value:g}"


def _texts(name: str, texts: Collection[str]) -> str:
    if len(texts) > MANY:
        return f"{name} holds {len(texts):,} texts"
    return f"{name} is longer than {LONGEST:,} characters" if any(len(text) > LONGEST for text in texts) else ""


def _short(text: str) -> str:
    return repr(printable(text[:80]))
