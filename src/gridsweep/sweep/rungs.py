"""Rungs: the steps at which a sweep compares its experiments and stops those that fall behind (early stopping).

Experiments are compared at the same step of the same learning-rate schedule. A schedule is never shortened to a rung:
that would be a different experiment. `halving` chooses the experiments that go on. On nine sweeps of 21 experiments
with a model of a million parameters, the default, judged by averaged weights, kept the winner in eight at a third of
the optimizer steps; on 18 others with fresh seeds (benchmarks/winner_kept.py) it kept the winner in 16. It has not been
tested on a large model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

PUBLISHED = 21
"""The number of experiments that the default rungs are meant for."""


@dataclass(frozen=True, slots=True)
class Rungs:
    """The rungs of a sweep: at each share of all steps in `at`, the number in `keep` go on.

    `keep_always` names experiments that go on in addition, such as the baseline. With `together`, all experiments wait
    at a rung until the last one is there; otherwise each is compared with those that reached it before. Without rungs
    no experiment stops early. Raises `ValueError` unless shares rise between 0 and 1, and numbers fall and are at
    least 1.
    """

    at: tuple[float, ...] = (0.125, 0.25, 0.5)
    keep: tuple[int, ...] = (11, 6, 3)
    keep_always: tuple[str, ...] = ()
    together: bool = True

    def __post_init__(self) -> None:
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

    Each rung keeps the same share, rounded, but no fewer than `at_least` (mid-run ranks mislead, so one survivor is too
    few). A rung that would then stop no experiment is left out: three experiments or fewer have no rungs. Raises
    `ValueError` for numbers below 1.
    """
    if min(experiments, of, at_least) < 1:
        raise ValueError(f"got {experiments} experiments of {of}, at least {at_least} kept; no number may be below 1")
    alive, chosen = experiments, []
    for share, keep in zip(rungs.at, rungs.keep, strict=True):
        number = max(at_least, floor(Fraction(keep * experiments, of) + Fraction(1, 2)))
        if number < alive:
            chosen.append((share, number))
            alive = number
    return replace(rungs, at=tuple(share for share, _ in chosen), keep=tuple(number for _, number in chosen))


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
