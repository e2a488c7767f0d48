"""Rungs: the steps at which a sweep compares its experiments and stops those that fall behind (early stopping).

Experiments are compared at the same step of the same learning-rate schedule. A schedule is never shortened to a rung:
that would be a different experiment. `halving` chooses the experiments that go on. The default was named by a race on
recorded learning curves (benchmarks/rung_race.py); no curve is of a large model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

PUBLISHED = 21
"""The number of experiments that the default rungs are meant for."""
FEWEST = 4
"""The steps before the first rung that a chosen rule takes: fewer say nothing of an experiment."""


@dataclass(frozen=True, slots=True)
class Rungs:
    """The rungs of a sweep: at each share of all steps in `at`, the number in `keep` go on.

    `keep_always` names experiments that go on in addition, such as the baseline. With `together`, all experiments wait
    at a rung until the last one is there; otherwise each is compared with those that reached it before. With `drift`,
    the numbers in `keep` are the most that go on, and those that clearly will not win stop (`halving.clear_cut`).
    Without rungs no experiment stops early. Raises `ValueError` unless shares rise between 0 and 1, numbers fall and
    are at least 1, and a drift comes with `together`.
    """

    at: tuple[float, ...]
    keep: tuple[int, ...]
    keep_always: tuple[str, ...] = ()
    together: bool = True
    drift: float | None = None

    def __post_init__(self) -> None:
        if self.drift is not None and not (self.drift >= 0 and self.together):
            raise ValueError(f"drift must not be negative, and compares all experiments at once, not {self.drift}")
        if len(self.at) != len(self.keep):
            raise ValueError(f"{len(self.at)} rungs need as many numbers to keep, not {len(self.keep)}")
        if not all(0 < share < 1 for share in self.at):
            raise ValueError(f"each rung must be a share of all steps between 0 and 1, not {_listed(self.at)}")
        if any(not earlier < later for earlier, later in zip(self.at, self.at[1:], strict=False)):
            raise ValueError(f"each rung must be after the one before it, not {_listed(self.at)}")
        if any(number < 1 for number in self.keep):
            raise ValueError(f"each rung must keep at least one experiment, not {_listed(self.keep)}")
        if any(not earlier > later for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise ValueError(f"each rung must keep fewer experiments than the one before it, not {_listed(self.keep)}")


DEFAULT = Rungs((1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4), (16, 10, 6, 4, 2))
"""What `rungs: default` means for 21 experiments."""
EACH = DEFAULT
"""The rule by fixed places, where experiments do not wait for one another."""
EARLIER = Rungs((1 / 8, 1 / 4, 1 / 2), (11, 6, 3))
"""What it meant up to version 0.1.0; journals hold the numbers, so that sweeps submitted then keep it."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Repeats of the best `finalists` of a sweep, with `seeds` seeds in total, after all experiments have ended.

    One run compares two adapters, not two configurations: another seed may reverse their order. Raises `ValueError`
    for fewer than two seeds or no finalist.
    """

    seeds: int = 3
    finalists: int = 3

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.finalists < 1:
            raise ValueError(f"repeats need at least 2 seeds and 1 finalist, not {self.seeds} and {self.finalists}")


@dataclass(frozen=True, slots=True)
class Proposals:
    """Points added to a sweep in places that rungs have freed: at most `most`, from the proposer named in `by`."""

    by: str = "edge"
    most: int = 4

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"at most {self.most} proposals add no point; give at least 1, or leave propose out")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(str(value) for value in values)


def scaled(rungs: Rungs, experiments: int, of: int = PUBLISHED, at_least: int = 3) -> Rungs:
    """Return the rungs adapted to another number of experiments; `rungs` are meant for `of`.

    Each rung keeps the same share, rounded, but no fewer than `at_least` (mid-run ranks mislead), or than its own
    number where that is smaller. A rung that would then stop no experiment is left out; `at_least` experiments or fewer
    have no rungs. Raises `ValueError` for numbers below 1.
    """
    if min(experiments, of, at_least) < 1:
        raise ValueError(f"got {experiments} experiments of {of}, at least {at_least} kept; no number may be below 1")
    if experiments <= at_least:
        return replace(rungs, at=(), keep=())
    alive, chosen = experiments, []
    for share, keep in zip(rungs.at, rungs.keep, strict=True):
        number = max(min(at_least, keep), floor(Fraction(keep * experiments, of) + Fraction(1, 2)))
        if number < alive:
            chosen.append((share, number))
            alive = number
    return replace(rungs, at=tuple(share for share, _ in chosen), keep=tuple(number for _, number in chosen))


def adapted(rungs: Rungs, experiments: int, total_steps: int, warmup: int = 0) -> Rungs:
    """Return the rungs of a chosen rule, such as the default, for another number of experiments and of steps.

    Rungs are left out that come within the first `warmup` steps, before FEWEST steps, or at the step of another: too
    little of the training is seen there.
    """
    found: list[tuple[float, int]] = []
    last = max(warmup, FEWEST - 1)
    for share, keep in zip(rungs.at, rungs.keep, strict=True):
        step = round(share * total_steps)
        if last < step < total_steps:
            found.append((share, keep))
            last = step
    left = replace(rungs, at=tuple(share for share, _ in found), keep=tuple(keep for _, keep in found))
    return scaled(left, experiments)


def steps(rungs: Rungs, total_steps: int) -> tuple[int, ...]:
    """Return the optimizer step of each rung: rising, the first at least 1, the last before the end.

    In a very short run, rungs are moved to at least one step apart. Raises `ValueError` if there are too few steps.
    """
    if total_steps <= len(rungs.at):
        raise ValueError(f"{total_steps} steps are too few for {len(rungs.at)} rungs; train longer or remove rungs")
    found: list[int] = []
    for i, share in enumerate(rungs.at):
        wanted = round(share * total_steps)
        earliest = found[-1] + 1 if found else 1
        found.append(min(max(wanted, earliest), total_steps - len(rungs.at) + i))
    return tuple(found)
