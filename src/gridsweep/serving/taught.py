"""What serving must repeat of a sweep's training: how prompts were written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Taught:
    """The version of the encoding, and the date that a template which writes today's got."""

    encoding: int = 1  # the version of sweeps whose journal names none
    date: datetime | None = None
