"""Deadlines where the lengths of stints are not what was estimated, and what that costs where they are.

    python benchmarks/deadlines.py TRACES [--runs N] [--grid NAME]...

TRACES holds `ZONE_YEAR.csv` (`timestamp,carbon_intensity`, hourly). The published sweep (21 stints of 90 minutes on two
devices) runs N times (600), in turn on each grid and within 24, 36 and 51.5 h. Start, spread of the lengths (0.1 to
1.2, of their logarithms) and true mean length (0.5 to 3 times the estimate) are drawn with fixed seeds. Every draw is
run at once, under `planned`, and under `planned` with `estimates: {guess: true}`. A deadline counts as missed if
running at once would have kept it by an hour.

The price is what `planned` saves less, in points, where every stint takes what was estimated: against the same plan
that learns nothing. Exits 1 where a goal is missed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import exp
from pathlib import Path

import click

from gridsweep import Sweep, load
from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.grid.recorded_forecasts import ReplayProvider, open_replay
from gridsweep.policy.gates import Immediate
from gridsweep.policy.registry import choice_of, policy_for
from gridsweep.policy.situation import Policy
from gridsweep.simulation.backtest import start_instants
from gridsweep.simulation.conditions import under
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.state import State
from gridsweep.sweep.stints import RESTART
from gridsweep.sweep.sweep import Replay

SPEC = Path(__file__).parent.parent / "examples" / "published.yaml"
GRIDS = ("DE_2023", "US-CAL-CISO_2024")
WITHIN = (24.0, 36.0, 51.5)
SPARE_H = 1.0
ALIKE, NEAR = 0.4, 1.5
"""Up to this spread and this mean length no deadline may be missed."""
MOST_MISSED, MOST_PRICE = 0.02, 1.0
"""The largest share of all draws that may be missed, and the largest price in points."""
LONG = 3.0
"""A stint is called long if it takes so many times the mean of its sweep."""


@dataclass(frozen=True)
class Draw:
    """One sweep: when it starts, its deadline, and how long its stints really take."""

    number: int
    grid: str
    within_h: float
    start: datetime
    spread: float
    length: float

    @property
    def near(self) -> bool:
        return self.spread <= ALIKE and self.length <= NEAR

    def factors(self, sweep: Sweep) -> dict[str, float]:
        """Return each experiment's factor on its estimate: log-normal, with the draw's mean."""
        chance = random.Random(f"lengths {self.number}")
        shift = self.spread**2 / 2
        return {e.id: self.length * exp(self.spread * chance.gauss(0, 1) - shift) for e in sweep.experiments}


def draws(runs: int, starts: dict[str, list[datetime]]) -> list[Draw]:
    """Return the draws; each depends on its number only."""
    grids, found = list(starts), []
    for i in range(runs):
        chance, grid = random.Random(f"draw {i}"), grids[i % len(grids)]
        start = chance.choice(starts[grid])
        within = WITHIN[i // len(grids) % len(WITHIN)]
        found.append(Draw(i, grid, within, start, chance.uniform(0.1, 1.2), chance.uniform(0.5, 3.0)))
    return found


@dataclass(frozen=True)
class Ran:
    """A draw run at once and under a plan: makespans in hours, the share saved, and the cause if it was missed."""

    draw: Draw
    atonce_h: float
    planned_h: float
    saved: float
    cause: str

    @property
    def missed(self) -> bool:
        return self.planned_h > self.draw.within_h


def ran(sweep: Sweep, draw: Draw, provider: ReplayProvider, policy: Policy, plain: Ledger) -> Ran | None:
    """Run one draw; None if running at once (`plain`) does not keep its deadline by an hour."""
    factors = draw.factors(sweep)
    if plain.makespan > (draw.within_h - SPARE_H) * HOUR:
        return None
    state = rehearse(sweep, draw.start, provider, policy, Simulated(factors=factors, restart=RESTART))
    book = ledger(state)
    saved = 1 - book.total.emissions_g / plain.total.emissions_g
    return Ran(draw, plain.makespan / HOUR, book.makespan / HOUR, saved, cause(state, factors))


def driven(
    sweep: Sweep, start: datetime, provider: ReplayProvider, policy: Policy, factors: dict[str, float] | None = None
) -> Ledger:
    """Return what a sweep cost that was run from a start."""
    return ledger(rehearse(sweep, start, provider, policy, Simulated(factors=factors, restart=RESTART)))


def cause(state: State, factors: dict[str, float]) -> str:
    """Say what the sweep was late for, by the attempt that ended last."""
    last = max(state.attempts.values(), key=lambda attempt: attempt.ended_at or attempt.requested_at)
    mean = sum(factors.values()) / len(factors)
    own = max(factors[member.experiment] for member in last.stint.members)
    begun = (last.requested_at - state.submitted_at) / HOUR
    first = min((a.requested_at for a in state.attempts.values()), default=state.submitted_at)
    if own >= LONG * mean:
        return f"one long stint ({own:.1f} times the estimate, mean {mean:.1f}) began at {begun:.1f} h"
    early = sorted(state.paces[:3])
    shown = ", ".join(f"{pace:.1f}" for pace in early)
    kind = "the first stints looked short" if early and sum(early) / len(early) < 0.8 * mean else "stints took long"
    return f"{kind} (first {shown}, mean {mean:.1f}; first start at {(first - state.submitted_at) / HOUR:.1f} h)"


def told(name: str, found: Sequence[Ran], runs: int) -> tuple[int, int]:
    """Print a table row and the missed draws; return how many were missed, and how many of the near ones."""
    missed = [each for each in found if each.missed]
    near = [each for each in found if each.draw.near]
    saved = 100 * sum(each.saved for each in found) / max(1, len(found))
    late = sum(each.missed for each in near)
    print(
        f"{name:<16}{runs:>6}{len(found):>9}{len(missed):>8}{100 * len(missed) / max(1, runs):>10.1f}"
        f"{len(near):>7}{late:>8}{saved:>9.1f}"
    )
    for each in missed:
        draw = each.draw
        print(
            f"    draw {draw.number}: {draw.grid}, within {draw.within_h:g} h, spread {draw.spread:.2f}, length "
            f"{draw.length:.2f}, at once {each.atonce_h:.1f} h, planned {each.planned_h:.1f} h: {each.cause}"
        )
    return len(missed), late


def price(sweep: Sweep, provider: ReplayProvider, starts: Sequence[datetime]) -> tuple[float, float, float]:
    """Return what a plan that learns nothing saves, and the points it loses by learning, without and with a guess.

    All stints take what was estimated. A sweep whose time follows the work learns nothing, and so is the reference.
    """
    totals = [0.0] * 4
    policy = policy_for(choice_of("planned:min_saving=0"))
    guessed = replace(sweep, estimates=replace(sweep.estimates, guess=True))
    for start in starts:
        sure = replace(sweep, replay=Replay(start, "auto"))
        books = [driven(sweep, start, provider, Immediate())]
        books += [driven(each, start, provider, policy) for each in (sure, sweep, guessed)]
        totals = [total + book.total.emissions_g for total, book in zip(totals, books, strict=True)]
    atonce, before, stated, guess = totals
    return 100 * (1 - before / atonce), 100 * (stated - before) / atonce, 100 * (guess - before) / atonce


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--grid", "names", multiple=True, default=GRIDS, show_default=True)
def main(folder: Path, runs: int, names: Sequence[str]) -> None:
    published = load(SPEC)
    grids = {name: open_replay(str(folder / f"{name}.csv")) for name in names}
    starts = {name: start_instants(provider.trace, HOUR) for name, provider in grids.items()}
    drawn, goals = draws(runs, starts), []
    columns = ("runs", "at once", "missed", "of runs %", "near", "missed", "saved %")
    print(f"{'planned':<16}" + "".join(f"{c:>{w}}" for c, w in zip(columns, (6, 9, 8, 10, 7, 8, 9), strict=True)))
    atonce = [
        driven(under(published), d.start, grids[d.grid], Immediate(), d.factors(published)) for d in drawn
    ]  # no deadline, and no guess, changes what runs at once
    for name, guess in (("estimate", False), ("estimate: guess", True)):
        base = replace(published, estimates=replace(published.estimates, guess=guess))
        policy = policy_for(choice_of("planned"))
        found = []
        for draw, plain in zip(drawn, atonce, strict=True):
            made = ran(under(base, finish_by=timedelta(hours=draw.within_h)), draw, grids[draw.grid], policy, plain)
            found += [made] if made else []
        missed, near = told(name, found, runs)
        goals.append((f"{name}, missed of all draws", missed <= MOST_MISSED * runs, f"{missed} of {runs} (<= 2 %)"))
        goals.append((f"{name}, missed of the near draws", near == 0, f"{near} (none)"))
    print(f"\n{'all as estimated':<24}{'within h':>9}{'less %':>9}{'price':>8}{'guess':>8}   points")
    prices = []
    for name, provider in grids.items():
        for within in WITHIN:
            some = random.Random(f"price {name}").sample(starts[name], max(1, min(48, runs // 12)))
            before, stated, guessed = price(under(published, finish_by=within * HOUR), provider, some)
            print(f"{name:<24}{within:>9g}{before:>9.1f}{stated:>8.2f}{guessed:>8.2f}")
            prices.append(stated)
            goals.append((f"{name}, {within:g} h, price", stated <= MOST_PRICE, f"{stated:.2f} points (<= 1)"))
    mean = sum(prices) / len(prices)
    goals.append(("price, mean", mean <= MOST_PRICE, f"{mean:.2f} points (<= 1)"))
    print("\n" + "\n".join(f"{'met   ' if met else 'MISSED'}  {what}: {figure}" for what, met, figure in goals))
    sys.exit(0 if all(met for _, met, _ in goals) else 1)


if __name__ == "__main__":
    main()
