"""The bars of a report grouped by stint, with the experiments of each tier: a stint may train several tiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any  # plotly has no types

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Bar
from gridsweep.render.pictures import at


@dataclass(frozen=True, slots=True)
class Pack:
    """The experiments that one stint trains together; `tiers` counts them by tier."""

    bars: tuple[Bar, ...]
    tiers: Mapping[str, int]

    @property
    def first(self) -> Bar:
        """One of the bars: all have the same device, times and end."""
        return self.bars[0]

    def share(self, tier: str) -> float:
        """Return the part of the experiments in this tier, from 0 to 1."""
        return self.tiers.get(tier, 0) / len(self.bars)

    def above(self, tier: str, order: Iterable[str]) -> float:
        """Return the part of the experiments in the tiers before this one in `order`, from 0 to 1."""
        total = 0.0
        for other in order:
            if other == tier:
                break
            total += self.share(other)
        return total


def packs(bars: Iterable[Bar]) -> list[Pack]:
    """Return every stint once, whatever tiers its experiments are of."""
    found: dict[tuple[str, datetime, datetime, str], list[Bar]] = {}
    for bar in bars:
        found.setdefault((bar.device, bar.start, bar.end, bar.how), []).append(bar)
    return [Pack(tuple(lot), Counter(bar.tier for bar in lot)) for lot in found.values()]


def lying(
    drawn: Sequence[Pack],
    lanes: dict[str, float],
    tier: str | None = None,
    order: Sequence[str] = (),
    height: float = 0.0,
) -> dict[str, Any]:
    """Return the places of bars in their lanes; with a tier, of its part of each bar's height."""
    found: dict[str, Any] = {
        "orientation": "h",
        "y": [lanes[pack.first.device] for pack in drawn],
        "base": [at(pack.first.start) for pack in drawn],
        "x": [(pack.first.end - pack.first.start) / timedelta(milliseconds=1) for pack in drawn],
    }
    if tier is None:
        return found
    parts = [(pack.above(tier, order), pack.share(tier)) for pack in drawn]
    middles = [height * (above + share / 2 - 0.5) for above, share in parts]
    found["y"] = [y + middle for y, middle in zip(found["y"], middles, strict=True)]
    return {**found, "width": [height * share for _, share in parts]}


def mark(places: Mapping[str, Row], pack: Pack) -> str:
    """Return a stint's mark: `#1` for the place of a single experiment, `10` for ten together, `×` for lost work."""
    row = places.get(pack.first.experiment)
    if pack.first.how == "lost" or (len(pack.bars) == 1 and row is not None and row.status == "failed"):
        return "×"
    if len(pack.bars) > 1:
        return str(len(pack.bars))
    return f"#{row.place}" if row is not None and row.place is not None else ""
