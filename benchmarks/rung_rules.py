"""Rules that stop experiments at rungs, each replayed on a recorded sweep (`curves.py`).

A rule is asked at rungs. It sees what is known then of the experiments that are left, and names those that continue.
What an experiment goes through does not depend on the others, so that a replay is exact but for the rounding of losses.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gridsweep.carbon.traces import Column
from gridsweep.selection.halving import Score, clear_cut, cut
from gridsweep.sweep.losses import Losses

SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
DEFAULT_AT, DEFAULT_KEEP = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4), (16, 10, 6, 4, 2)
Array: TypeAlias = Any  # numpy arrays of two and three axes


@dataclass(slots=True)
class Sweep:
    """The losses of one sweep; what diverged is infinite."""

    name: str
    family: str
    seed: int
    multiple: float
    steps: int
    at: tuple[int, ...]  # steps of the rungs
    params: Array  # [experiments, 4]: r, alpha, lr, dropout
    averaged: Array  # [rungs, experiments, samples]
    raw: Array  # [rungs, experiments]
    window: Array  # [rungs, experiments]
    final: Column  # [experiments]
    scores: dict[int, dict[int, Score]] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """Median less best of the final losses."""
        return float(np.median(self.final) - self.final.min())

    def mean(self, rung: int) -> Column:
        """The loss of averaged weights of every experiment."""
        found: Column = self.averaged[rung].mean(axis=1)
        return found

    def score(self, rung: int, one: int) -> Score:
        """Return the score as the shipped rule sees it."""
        found = self.scores.setdefault(rung, {})
        if one not in found:
            losses = self.averaged[rung, one]
            known = Losses(tuple(losses.tolist()), (1.0,) * len(losses)) if np.isfinite(losses).all() else None
            found[one] = Score(known.mean if known else None, None, known)
        return found[one]


def read(file: Path) -> Sweep:
    """Return the curves in a file."""
    found = json.loads(gzip.decompress(file.read_bytes()))
    samples = len(next(row for row in found["averaged"][0] if row))

    def column(values: Sequence[float | None]) -> list[float]:
        return [math.inf if value is None else value for value in values]

    averaged = [[row or [math.inf] * samples for row in rung] for rung in found["averaged"]]
    final = [sum(row) / len(row) if row else math.inf for row in found["final"]]
    return Sweep(
        file.name.removesuffix(".json.gz"), found["family"], found["seed"], found["multiple"], found["steps"],
        tuple(found["at"]), np.array(found["params"]), np.array(averaged), np.array([column(r) for r in found["raw"]]),
        np.array([column(r) for r in found["window"]]), np.array(final),
    )  # fmt: skip


# -- a rule and its replay

Decide: TypeAlias = Callable[[Sweep, int, list[int]], list[int]]
"""(sweep, index of the rung, experiments that are left) -> those that continue."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its name, the rungs (places in SHARES) at which it is asked, and how it decides."""

    name: str
    rungs: tuple[int, ...]
    decide: Decide


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a rule makes of a sweep: regret as a share of (median - best), share of steps, experiments scored."""

    regret: float
    kept: bool
    share: float
    scored: int


def replay(sweep: Sweep, rule: Rule) -> Replayed:
    """Ask the rule at its rungs; it must keep one at least, and none that it was not given."""
    alive, made, before, scored = list(range(len(sweep.final))), 0, 0, 0
    for rung in rule.rungs:
        made += len(alive) * (sweep.at[rung] - before)
        before, scored = sweep.at[rung], scored + len(alive)
        kept = rule.decide(sweep, rung, alive)
        if not kept or not set(kept) <= set(alive):
            raise ValueError(f"{rule.name} kept {kept} of {alive}")
        alive = sorted(kept)
    made += len(alive) * (sweep.steps - before)
    lost = float(min(sweep.final[alive]) - sweep.final.min())
    share = made / (len(sweep.final) * sweep.steps)
    return Replayed(lost / sweep.spread, lost == 0, share, scored)


# -- fixed places


def fixed(keep: Sequence[int], at: Sequence[float], name: str = "") -> Rule:
    """Return the shipped rule with these places: `cut` with its ties."""
    rungs = tuple(SHARES.index(share) for share in at)
    places = dict(zip(rungs, keep, strict=True))

    def decide(sweep: Sweep, rung: int, alive: list[int]) -> list[int]:
        made = cut({f"{one:02}": sweep.score(rung, one) for one in alive}, places[rung])
        return [int(one) for one in made.kept]

    listed = ", ".join(map(str, keep)) + " at " + ", ".join(_fraction(share) for share in at)
    return Rule(name or listed, rungs, decide)


def _fraction(share: float) -> str:
    numerator, denominator = share.as_integer_ratio()
    return f"{numerator}/{denominator}"


def by_value(value: Callable[[Sweep, int, list[int]], Column], name: str, at: Sequence[float] = DEFAULT_AT,
             keep: Sequence[int] = DEFAULT_KEEP) -> Rule:  # fmt: skip
    """Return a rule with fixed places by another value than the averaged loss, without ties; NaN ranks last."""
    rungs = tuple(SHARES.index(share) for share in at)
    places = dict(zip(rungs, keep, strict=True))

    def decide(sweep: Sweep, rung: int, alive: list[int]) -> list[int]:
        values = np.nan_to_num(value(sweep, rung, alive), nan=math.inf)
        order = sorted(range(len(alive)), key=lambda place: (values[place], place))
        found = [alive[place] for place in order[: places[rung]] if np.isfinite(values[place])]
        return found or alive[:1]

    return Rule(name, rungs, decide)


# -- paired tests


def paired(
    drift: float,
    power: float = 1.0,
    most: Sequence[int] | None = None,
    at: Sequence[float] = SHARES,
) -> Rule:
    """Return the rule that stops an experiment when it is clear that it will not win within 1 % of the spread.

    `drift` x (median - best) x the share of steps still to make, to `power`, is how far differences still move. It is
    the rule that gridsweep has (`clear_cut`). With `most`, no more than these go on at each rung.
    """
    rungs = tuple(SHARES.index(share) for share in at)

    def decide(sweep: Sweep, rung: int, alive: list[int]) -> list[int]:
        places, of = most[rungs.index(rung)] if most else len(alive), len(sweep.final)
        scores = {f"{one:02}": sweep.score(rung, one) for one in alive}
        made = clear_cut(scores, places, drift=drift, left=(1 - SHARES[rung]) ** power, of=of)
        return [int(one) for one in made.kept] or alive[:1]

    name = f"paired, drift {drift:g}, power {power:g}, {len(rungs)} rungs" + (
        f", at most {', '.join(map(str, most))}" if most else ""
    )
    return Rule(name, rungs, decide)


# -- extrapolation


def freeze_thaw(power: float, weight: float) -> Rule:
    """Return the rule that ranks by where each curve is heading: a + b t^-power through the last three rungs, at 1.

    `weight` is the share of the extrapolated loss in the score; the rest is the loss now.
    """

    def value(sweep: Sweep, rung: int, alive: list[int]) -> Column:
        now = sweep.mean(rung)[alive]
        seen = list(range(max(0, rung - 2), rung + 1))
        if len(seen) < 2:
            return now
        basis = np.array([SHARES[i] ** -power for i in seen])
        losses = np.array([sweep.mean(i)[alive] for i in seen])  # [rungs, experiments]
        finite = np.isfinite(losses).all(axis=0)
        losses = np.where(finite, losses, 0.0)
        centred = basis - basis.mean()
        slope = centred @ losses / (centred @ centred)
        then = losses.mean(axis=0) + slope * (1 - basis.mean())
        found: Column = np.where(finite, (1 - weight) * now + weight * then, math.inf)
        return found

    return by_value(value, f"freeze-thaw, power {power:g}, weight {weight:g}")


def features(sweep: Sweep, rung: int, alive: list[int]) -> Array:
    """Return [experiments, features] relative to the others that are left, in units of their (median - best)."""
    now = sweep.mean(rung)[alive]
    before = sweep.mean(max(0, rung - 1))[alive]
    few = sweep.averaged[rung][alive][:, :24].mean(axis=1)
    rates = np.log(sweep.params[alive, 2])
    strength = np.log(sweep.params[alive, 2] * sweep.params[alive, 1] / sweep.params[alive, 0])
    scale = max(float(np.median(now) - now.min()), 1e-6)

    def relative(values: Column) -> Column:
        found: Column = np.clip(np.nan_to_num((values - np.median(values)) / scale, posinf=4, neginf=-4), -4, 4)
        return found

    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num((sweep.raw[rung][alive] - few) / scale, nan=4, posinf=4)
        moved = relative(now) - relative(before)
    columns = [
        relative(now), relative(sweep.window[rung][alive]), moved, np.clip(gap - np.median(gap), -4, 4),
        (rates - rates.mean()) / 2, (strength - strength.mean()) / 2, np.log2(sweep.params[alive, 0]) / 2 - 2,
        np.argsort(np.argsort(now)) / max(1, len(alive) - 1) - 0.5, np.ones(len(alive)),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def target(sweep: Sweep, alive: list[int]) -> Column:
    """Return final losses less the best of those left, in units of their (median - best), at most 3."""
    last = sweep.final[alive]
    scale = max(float(np.median(last) - last.min()), 1e-6) if np.isfinite(np.median(last)) else 1e-6
    found: Column = np.clip((last - last.min()) / scale, 0, 3)
    return found


def learned(sweeps: Sequence[Sweep], ridge: float, weight: float) -> Rule:
    """Return the rule that ranks by a ridge regression of the final losses, trained on `sweeps`, one for each rung.

    It is trained on those experiments that 16, 10, 6, 4, 2 leaves at that rung. `weight` is its share in the score.
    """
    rule, models = fixed(DEFAULT_KEEP, DEFAULT_AT), {}
    for rung in rule.rungs:
        rows, wanted = [], []
        for sweep in sweeps:
            alive = left(sweep, rule, rung)
            x = features(sweep, rung, alive)
            rows.append(x)
            wanted.append(target(sweep, alive))
        x, y = np.concatenate(rows), np.concatenate(wanted)
        models[rung] = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)

    def value(sweep: Sweep, rung: int, alive: list[int]) -> Column:
        x = features(sweep, rung, alive)
        found: Column = (1 - weight) * x[:, 0] + weight * (x @ models[rung])
        return np.where(np.isfinite(sweep.mean(rung)[alive]), found, math.inf)

    return by_value(value, f"learned, ridge {ridge:g}, weight {weight:g}")


def left(sweep: Sweep, rule: Rule, rung: int) -> list[int]:
    """Return the experiments that a rule still has when it comes to a rung."""
    alive = list(range(len(sweep.final)))
    for earlier in rule.rungs:
        if earlier < rung:
            alive = sorted(rule.decide(sweep, earlier, alive))
    return alive


def prior(sweeps: Sequence[Sweep], weight: float) -> Rule:
    """Return the rule that adds to the loss what configurations like these came to in earlier `sweeps`.

    The prior is a ridge regression of final losses on log rate, log strength (rate x alpha / r), their squares, log
    rank and dropout; `weight` of it is added at the first rung, less the further the training is.
    """
    x = np.concatenate([_configuration(sweep.params) for sweep in sweeps])
    y = np.concatenate([target(sweep, list(range(len(sweep.final)))) for sweep in sweeps])
    model = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)

    def value(sweep: Sweep, rung: int, alive: list[int]) -> Column:
        now = sweep.mean(rung)[alive]
        scale = max(float(np.median(now) - now.min()), 1e-6)
        believed = np.clip(_configuration(sweep.params[alive]) @ model, 0, 3)
        found: Column = now + weight * (1 - SHARES[rung]) * scale * believed
        return found

    return by_value(value, f"prior, weight {weight:g}")


def _configuration(params: Array) -> Array:
    rate = np.log10(params[:, 2]) + 2.5
    strength = np.log10(params[:, 2] * params[:, 1] / params[:, 0]) + 2
    columns = [rate, strength, rate**2, strength**2, np.log2(params[:, 0]) - 3, params[:, 3] * 10, np.ones(len(params))]
    return np.stack(columns, axis=1)
