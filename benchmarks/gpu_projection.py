"""From seconds and joules a token to hours and kWh of the published sweep: arithmetic, no measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gridsweep.sweep.rungs import DEFAULT, steps

CONFIGURATIONS, OF_RANK_16, SAMPLES, JUDGED, BATCH, QUARTER = 21, 8, 12_000, 1_000, 8, 0.25
STEPS = SAMPLES // BATCH
RUNGS = DEFAULT
CHAIN = "-".join(map(str, (CONFIGURATIONS, *RUNGS.keep)))


@dataclass(frozen=True, slots=True)
class Rate:
    """What a token takes, in seconds; and in joules, where they were counted."""

    seconds: float
    joules: float | None

    def times(self, tokens: float) -> Rate:
        return Rate(self.seconds * tokens, None if self.joules is None else self.joules * tokens)

    def plus(self, other: Rate) -> Rate:
        drawn = None if self.joules is None or other.joules is None else self.joules + other.joules
        return Rate(self.seconds + other.seconds, drawn)


@dataclass(frozen=True, slots=True)
class Rates:
    """All that was measured: PEFT's by rank, lean's by the number of members, and what judging takes."""

    naive: Mapping[int, Rate]
    tuned: Mapping[int, Rate]
    lean: Mapping[int, Rate]
    judging_naive: Rate
    judging_tuned: Rate
    judging_lean: Rate

    def mixed(self, by_rank: Mapping[int, Rate]) -> Rate:
        """Of the average configuration."""
        share = OF_RANK_16 / CONFIGURATIONS
        return by_rank[16].times(share).plus(by_rank[32].times(1 - share))

    def together(self, members: float) -> Rate:
        """Of so many members; between measured numbers it is interpolated, beyond them it is the nearest."""
        known = sorted(self.lean)
        low = max((n for n in known if n <= members), default=known[0])
        high = min((n for n in known if n >= members), default=known[-1])
        if low == high:
            return self.lean[low]
        share = (members - low) / (high - low)
        return self.lean[low].times(1 - share).plus(self.lean[high].times(share))


def projected(rates: Rates, length: float) -> dict[str, Any]:
    """Hours and kWh of the published sweep by each way, for samples of `length` tokens on average; ratios to naive."""
    train, judged = SAMPLES * length, JUDGED * length
    found = {
        "naive, one after another": _alone(rates.mixed(rates.naive), rates.judging_naive, train, judged),
        "tuned, one after another": _alone(rates.mixed(rates.tuned), rates.judging_tuned, train, judged),
        "lean, all to the end": _full(rates, train, judged),
        f"lean, rungs {CHAIN}": _with_rungs(rates, train, judged),
    }
    naive = found["naive, one after another"]
    return {
        name: {
            "hours": one.seconds / 3600,
            "kwh": None if one.joules is None else one.joules / 3.6e6,
            "times_as_fast": naive.seconds / one.seconds,
            "of_naive_energy": None if one.joules is None or not naive.joules else one.joules / naive.joules,
        }
        for name, one in found.items()
    }


def estimates(rates: Rates, length: float) -> dict[str, Any]:
    """`packed` and `evaluation` as a spec's `estimates.results` reads them."""
    naive = rates.mixed(rates.naive)
    alone = _alone(naive, rates.judging_naive, SAMPLES * length, JUDGED * length).seconds / CONFIGURATIONS
    rung = rates.judging_lean.times(QUARTER * JUDGED * length).seconds
    return {
        "packed": [[n, round(rate.seconds / naive.seconds, 4)] for n, rate in sorted(rates.lean.items())],
        "evaluation": round(rung / alone, 6),
    }


def _alone(rate: Rate, judging: Rate, train: float, judged: float) -> Rate:
    """All configurations, judged before and after."""
    return rate.times(CONFIGURATIONS * train).plus(judging.times(2 * CONFIGURATIONS * judged))


def _full(rates: Rates, train: float, judged: float) -> Rate:
    """Judged before (the base once, for adapters begin at nothing) and after."""
    trained = rates.together(CONFIGURATIONS).times(CONFIGURATIONS * train)
    return trained.plus(rates.judging_lean.times((1 + CONFIGURATIONS) * judged))


def _with_rungs(rates: Rates, train: float, judged: float) -> Rate:
    """Those alive at each rung judged on a quarter; the baseline is carried on, ties are not foreseen."""
    alive, before = float(CONFIGURATIONS), 0
    total = rates.judging_lean.times(judged)
    for step, keep in zip(steps(RUNGS, STEPS), RUNGS.keep, strict=True):
        total = total.plus(rates.together(alive).times(alive * train * (step - before) / STEPS))
        total = total.plus(rates.judging_lean.times(alive * QUARTER * judged))
        alive, before = min(alive, keep + 1 - keep / CONFIGURATIONS), step
    total = total.plus(rates.together(alive).times(alive * train * (STEPS - before) / STEPS))
    return total.plus(rates.judging_lean.times(alive * judged))
