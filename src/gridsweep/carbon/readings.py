"""Readings: the answer of a provider at one moment, with the source of every slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import Trace

Kind = Literal["average", "marginal", "index"]
"""Grams of the average or of the marginal kWh; an index is not an amount of carbon and never counts as grams."""
Basis = Literal["lifecycle", "direct", "unknown"]
"""Whether plant construction and fuel supply count (lifecycle), or only emissions at the plant (direct)."""
Quality = Literal["measured", "estimated", "forecast", "imputed", "stale", "static", "synthetic"]
Freshness = Literal["live", "cached", "stale", "forecast", "static", "none"]
"""How close an answer is to the live grid; from `stale` on, the current slot is not observed."""

LOST: tuple[Freshness, ...] = ("static", "none")
"""At this freshness the current intensity is unknown: no work is placed by it, and no saving is claimed."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The source of slots and the meaning of their figures; `title` is the name shown to users.

    `issued_at` is when a forecast was made, `fetched_at` when the answer arrived; None for data that is always there.
    """

    title: str
    quality: Quality = "measured"
    provider: str = "trace"
    zone: str = ""
    kind: Kind = "average"
    basis: Basis = "unknown"
    issued_at: datetime | None = None
    fetched_at: datetime | None = None

    @property
    def timeless(self) -> Provenance:
        """The same provenance without its times, to distinguish sources."""
        return replace(self, issued_at=None, fetched_at=None) if self.issued_at or self.fetched_at else self

    @property
    def meaning(self) -> tuple[Kind, Basis]:
        """Kind and basis: only figures with the same meaning may be added up."""
        return (self.kind, self.basis)


def titled(title: str, quality: str) -> str:
    """Return a source's title with its quality, unless the title names the quality already."""
    return title if quality in title else f"{title} ({quality})"


@dataclass(frozen=True, slots=True)
class Stretch:
    """The provenance of the slots from `start` to the next stretch."""

    start: datetime
    provenance: Provenance


class Reading:
    """A provider's answer at one moment: the past up to the current slot, and possibly a forecast.

    `provenance` applies to the whole history, or lists its stretches in order of time, the first not after the
    history's start. `forecast` may be a function, which is called once on first use, since most ticks do not need it.
    `why` says why the rungs above did not answer.
    """

    __slots__ = ("_forecast", "freshness", "history", "stretches", "why")

    def __init__(
        self,
        history: Trace,
        forecast: Forecast | Callable[[], Forecast | None] | None,
        provenance: Provenance | Sequence[Stretch],
        freshness: Freshness = "live",
        why: str = "",
    ):
        self.history = history
        self.stretches: tuple[Stretch, ...] = (
            (Stretch(history.start, provenance),) if isinstance(provenance, Provenance) else tuple(provenance)
        )
        self.freshness = freshness
        self.why = why
        self._forecast = forecast

    @property
    def forecast(self) -> Forecast | None:
        """The forecast from the current slot on, or None if there is none."""
        if callable(self._forecast):
            self._forecast = self._forecast()
        return self._forecast

    @property
    def provenance(self) -> Provenance:
        """The provenance of the latest slot."""
        return self.stretches[-1].provenance

    @property
    def lost(self) -> bool:
        """Whether the current intensity is unknown."""
        return self.freshness in LOST

    def __repr__(self) -> str:
        return f"Reading({self.history!r}, {self.provenance.title!r}, {self.freshness})"
