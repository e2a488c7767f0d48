"""Rungs: the steps at which a sweep looks at its experiments and stops those that fall behind.

All experiments stand at the same step of the same learning-rate schedule when they are compared. A schedule is never
shortened to a rung; that would be a different experiment. Which of them go on is `halving`'s to say. On nine sweeps of
21 experiments with a model of a million parameters the default, judged by averaged weights, kept the winner in eight at
a third of the optimizer steps; on 18 others with fresh seeds (benchmarks/winner_kept.py) it kept the winner in 16.
Nobody has tried it on a large model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

PUBLISHED = 21
"""The number of experiments the default rungs are for."""


@dataclass(frozen=True, slots=True)
class Rungs:
    """Where a sweep stops experiments: at these shares of all steps, `keep` of them go on.

    `keep_always` names experiments that go on beyond that number, such as the baseline. `together` has everybody wait
    at a rung for everybody; otherwise whoever comes is judged by those who came before. No rungs, no stopping. Raises
    `ValueError` for shares that do not rise within 0 to 1, or numbers that do not fall to 1 at least.
    """

    at: tuple[float, ...] = (0.125, 0.25, 0.5)
    keep: tuple[int, ...] = (11, 6, 3)
    keep_always: tuple[str, ...] = ()
    together: bool = True

    def __post_init__(self) -> None:
        if len(self.at) != len(self.keep):
            raise ValueError(f"{len(self.at)} rungs need as many numbers to keep, not {len(self.keep)}")
        if not all(0 < share < 1 for share in self.at):
            raise ValueError(f"rungs lie between 0 and 1, shares of all steps: {_listed(self.at)}")
        if any(not earlier < later for earlier, later in zip(self.at, self.at[1:], strict=False)):
            raise ValueError(f"each rung lies after the one before it: {_listed(self.at)}")
        if any(number < 1 for number in self.keep):
            raise ValueError(f"a rung keeps one experiment at least: {_listed(self.keep)}")
        if any(not earlier > later for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise ValueError(f"each rung keeps fewer than the one before it: {_listed(self.keep)}")


@dataclass(frozen=True, slots=True)
class Repeats:
    """The best `finalists` of a sweep are trained with `seeds` seeds in all, once everybody has ended.

    One run tells how two adapters differ, not how two configurations do: another seed may turn them round. Raises
    `ValueError` for fewer than two seeds or no finalist.
    """

    seeds: int = 3
    finalists: int = 3

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.finalists < 1:
            raise ValueError(f"{self.seeds} seeds of {self.finalists} finalists: it takes two seeds and one finalist")


@dataclass(frozen=True, slots=True)
class Proposals:
    """`most` points at most are added to a sweep, for places that rungs have freed; `by` says who proposes them."""

    by: str = "edge"
    most: int = 4

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"{self.most} proposals are none; leave propose out")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(str(value) for value in values)


def scaled(rungs: Rungs, experiments: int, of: int = PUBLISHED, at_least: int = 3) -> Rungs:
    """The same rungs for another number of experiments; `rungs` are meant for `of`.

    Each keeps the same share, rounded, and `at_least` so many (mid-run ranks mislead, so one survivor is too few). A
    rung that would then stop nobody is left out: three experiments and fewer have none. Raises `ValueError` for numbers
    below 1.
    """
    if min(experiments, of, at_least) < 1:
        raise ValueError(f"{experiments} experiments of {of}, {at_least} kept at least: none may be below 1")
    alive, chosen = experiments, []
    for share, keep in zip(rungs.at, rungs.keep, strict=True):
        number = max(at_least, floor(Fraction(keep * experiments, of) + Fraction(1, 2)))
        if number < alive:
            chosen.append((share, number))
            alive = number
    return replace(rungs, at=tuple(share for share, _ in chosen), keep=tuple(number for _, number in chosen))


def steps(rungs: Rungs, total_steps: int) -> tuple[int, ...]:
    """The optimizer step of each rung: rising, the first at least 1, the last before the end.

    In a very short run rungs move apart by a step each. Raises `ValueError` where there are too few steps for that.
    """
    if total_steps <= len(rungs.at):
        raise ValueError(f"{total_steps} steps have no room for {len(rungs.at)} rungs before the end")
    found: list[int] = []
    for i, share in enumerate(rungs.at):
        wanted = round(share * total_steps)
        earliest = found[-1] + 1 if found else 1
        found.append(min(max(wanted, earliest), total_steps - len(rungs.at) + i))
    return tuple(found)
