"""The attempts of an experiment, joined into the one run that would have been enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from gridsweep.accounting.ledger import kept
from gridsweep.state.standings import Attempt


def stages_of(attempt: Attempt, experiment: str) -> set[int]:
    """Return the steps at which an attempt was to end an experiment's stage."""
    return {member.to_step for member in attempt.stint.members if member.experiment == experiment}


def joined(attempts: Sequence[Attempt]) -> Profile:
    """Return the attempts of one experiment as the one run that would have been enough."""
    length = timedelta(0)
    parts: list[tuple[timedelta, timedelta, float]] = []
    for attempt in attempts:
        segments = kept(attempt, reload=bool(parts))
        if not segments:
            continue
        begin = segments[0].start if parts else min(attempt.requested_at, segments[0].start)
        whole = attempt.end in ("ended", "paused") and attempt.ended_at is not None
        end = max(attempt.ended_at, segments[-1].end) if whole and attempt.ended_at else segments[-1].end
        share = len(attempt.stint.members)
        parts += [(length + (s.start - begin), s.end - s.start, s.kwh / share) for s in segments]
        length += end - begin
    return Profile(length, tuple(parts))


@dataclass(frozen=True, slots=True)
class Profile:
    """The duration and energy of one experiment: segments of (offset from its start, length, kWh)."""

    duration: timedelta
    segments: tuple[tuple[timedelta, timedelta, float], ...]
