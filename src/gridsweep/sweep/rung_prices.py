"""The price list of rung rules: what each costs in steps, and what it loses, as measured (benchmarks/rung_race.py).

Regret is the final loss of the best experiment that a rule keeps, less that of the best of all, as a share of (median -
best) of all final losses. It is a mean over the sweeps of the families that were kept for judging; `limit` is its
one-sided 90 % limit by a bootstrap over those sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridsweep.sweep.rungs import PUBLISHED, Rungs, adapted
from gridsweep.sweep.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Price:
    """A rule for 21 experiments with its share of all steps, ties included, its mean regret, and the regret's limit."""

    rungs: Rungs
    share: float
    regret: float
    limit: float


_AT = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
PRICES: tuple[Price, ...] = (
    Price(Rungs(_AT, (18, 15, 12, 9, 6), drift=0.1), 0.1722, 0.06029, 0.09414),
    Price(Rungs(_AT, (18, 15, 12, 9, 6), drift=0.15), 0.1788, 0.04919, 0.08222),
    Price(Rungs(_AT, (18, 15, 12, 9, 6), drift=0.3), 0.2086, 0.04601, 0.07916),
    Price(Rungs(_AT, (18, 15, 12, 9, 6), drift=0.45), 0.2765, 0.02955, 0.05463),
    Price(Rungs(_AT, (16, 10, 6, 4, 2)), 0.3145, 0.02347, 0.03882),
    Price(Rungs((1 / 8, 1 / 4, 1 / 2), (11, 6, 3)), 0.3383, 0.03343, 0.05961),
    Price(Rungs((1 / 8, 1 / 4, 1 / 2, 3 / 4), (10, 7, 4, 2)), 0.3413, 0.03409, 0.06035),
    Price(Rungs(_AT, (18, 15, 12, 9, 6), drift=0.6), 0.3471, 0.01107, 0.02213),
    Price(Rungs((1 / 8, 1 / 4, 1 / 2, 3 / 4), (15, 11, 8, 3)), 0.4816, 0.00806, 0.01612),
)
"""The rules measured, the cheapest first."""
MEASURED_ON = "24 sweeps of 21 experiments on tiny models (docs/training.md)"
"""The sweeps behind the list."""


def cheapest(regret: float) -> Price:
    """Return the rule with the least share of steps whose regret's limit is at most `regret`.

    Raise `ValueError` that names the least limit if no rule that was measured reaches it.
    """
    found = [price for price in PRICES if price.limit <= regret]
    if not found:
        least = min(PRICES, key=lambda price: price.limit)
        raise ValueError(
            f"no rule is measured to keep regret within {100 * regret:.2f} %; the least is {100 * least.limit:.2f} %, "
            f"at {100 * least.share:.0f} % of the steps; allow that, or set rungs: none, which loses nothing"
        )
    return min(found, key=lambda price: (price.share, price.limit))


def price_of(rungs: Rungs, experiments: int, total_steps: int, warmup: int = 0) -> Price | None:
    """Return the measured rule that these rungs come from, for this number of experiments and steps; None if none."""
    if not rungs.together:
        return None
    here = (rungs.at, rungs.keep, rungs.drift)
    for price in PRICES:
        made = adapted(price.rungs, experiments, total_steps, warmup)
        if here == (made.at, made.keep, made.drift) and rungs.at:
            return price
    return None


def rungs_told(sweep: Sweep) -> str:
    """Return a sentence on the rungs of a sweep: which they are, and what was measured of them."""
    rungs = sweep.rungs
    if rungs is None:
        return "no rungs: every experiment is trained to its end"
    experiments = sum(e.repeats is None for e in sweep.experiments)
    at = ", ".join(f"{share:.4g}" for share in rungs.at)
    most = "" if rungs.drift is None else "what may still win, at most "
    kept = f"rungs keep {most}{', '.join(map(str, rungs.keep))} of {experiments} at {at} of the steps"
    price = price_of(rungs, experiments, sweep.total_steps, round(sweep.recipe.warmup * sweep.total_steps))
    if price is None:
        return f"{kept}; what this rule loses was not measured"
    loses = f"a regret of {100 * price.regret:.1f} % of median - best (90 %: at most {100 * price.limit:.1f} %)"
    whole = (rungs.at, rungs.keep) == (price.rungs.at, price.rungs.keep) and experiments == PUBLISHED
    which = "" if whole else f" as {', '.join(map(str, price.rungs.keep))} of {PUBLISHED}"
    return f"{kept}; measured{which}: {loses} at {100 * price.share:.0f} % of the steps, on {MEASURED_ON}"
