"""What a provider says at one moment, and where every slot of it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import Trace

Kind = Literal["average", "marginal", "index"]
"""Grams of the average or of the marginal kWh; an index is no amount of carbon and is never taken for grams."""
Basis = Literal["lifecycle", "direct", "unknown"]
"""Whether building plants and fetching fuel count, or only what comes out of the stack."""
Quality = Literal["measured", "estimated", "forecast", "imputed", "stale", "static", "synthetic"]
Freshness = Literal["live", "cached", "stale", "forecast", "static", "none"]
"""How near to the grid an answer is; from `stale` on nobody has seen the present slot."""

LOST: tuple[Freshness, ...] = ("static", "none")
"""On these rungs nothing is known of the present: work is not placed by them, and no saving is claimed."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where slots come from and what their figures mean; `title` is what people are told.

    `issued_at` is when a forecast was made, `fetched_at` when the answer came; None for what was always there.
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
        """The same without its times, to tell sources apart."""
        return replace(self, issued_at=None, fetched_at=None) if self.issued_at or self.fetched_at else self

    @property
    def meaning(self) -> tuple[Kind, Basis]:
        """What may be added up: only figures of one meaning."""
        return (self.kind, self.basis)


def titled(title: str, quality: str) -> str:
    """Return a source's title with its quality, unless the title names the quality already."""
    return title if quality in title else f"{title} ({quality})"


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `start` to the next stretch, slots have this provenance."""

    start: datetime
    provenance: Provenance


class Reading:
    """All a provider can say at one moment: the past up to the present slot, and perhaps a forecast.

    `provenance` is that of the whole history, or its stretches in order of time, the first not after the history's
    start. `forecast` may be given as a function, which is called once, when somebody asks: most ticks never do.
    `why` says what kept the rungs above from answering.
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
        """What is expected from the present slot on, or None where nobody can say."""
        if callable(self._forecast):
            self._forecast = self._forecast()
        return self._forecast

    @property
    def provenance(self) -> Provenance:
        """That of the latest slot."""
        return self.stretches[-1].provenance

    @property
    def lost(self) -> bool:
        """Whether nothing is known of the present."""
        return self.freshness in LOST

    def __repr__(self) -> str:
        return f"Reading({self.history!r}, {self.provenance.title!r}, {self.freshness})"
