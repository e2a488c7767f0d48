"""Size a sweep before it starts: experiments, passes over the data, rungs and packs that a budget holds.

Nothing is measured here. Time is counted as `plan` counts it: experiments one after another, packs saving nothing, so
that the work tends to be overestimated. A budget is filled to `FILL` only: the rest is for what no estimate knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Recipe
from gridsweep.sweep.rungs import DEFAULT, Rungs, adapted, steps
from gridsweep.sweep.stints import RESTART
from gridsweep.sweep.surveys import DataFacts, DeviceFacts, MemoryFacts, ModelFacts, Survey

FILL, FILL_GUESSED = 0.8, 0.5
"""The share of a budget that is planned for, where the speed was measured and where it is a guess."""
FLOPS = {"cpu": 2.5e10, "cuda": 4e13}
"""Assumed arithmetic a second, a guess: of one core, and of a GPU between an RTX 3090 and an A100."""
WEIGHTS_READ = 2e8
"""Assumed bytes of weights that are loaded in a second."""
STARTING_S = 10.0
"""Assumed seconds until a worker's libraries are loaded."""
CORE_W, GPU_W = 15.0, 350.0
"""Power that is stated where none is known: of one busy core, and of a GPU."""
PROCESS = 1e9
"""Bytes on a CPU for Python, torch and data, an assumption: what a worker takes beside the base is measured there."""
ALPHA = 32.0
RANKS = (16, 32, 64, 128)
RATES = 5e-4
WIDTH = {"Qwen": 0.0775, "": 0.781}
"""The learning rate that LoRA wants at a hidden width of 2,000 with alpha 32, and the power of 2,000 / width by which
it changes, by family; other families get Llama's. From LoRA Without Regret (2025)."""
LENGTHS, LONGEST = 32, 4096
"""Sample lengths are cut to a multiple of the first, and to the second at most."""
MOST_VALIDATION = 256
LEAST_SAMPLES = 200
"""Samples of a budget's smallest sweep; data with fewer are used whole."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Hours from submission to end, and grams of CO2eq at the grid's `intensity` in g/kWh; None: no limit."""

    hours: float | None = None
    grams: float | None = None
    intensity: float | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is tried: how many learning rates, ranks and dropouts, passes over the data, its share, and seeds."""

    rates: int
    ranks: int
    dropouts: int
    epochs: int
    share: Fraction = Fraction(1)
    seeds: int = 1

    @property
    def experiments(self) -> int:
        return self.rates * self.ranks * self.dropouts


@dataclass(frozen=True, slots=True)
class Cost:
    """What a sweep takes by estimates: seconds of an experiment alone, whole runs in all, hours to the end, energy."""

    experiment_s: float
    runs: float
    hours: float
    kwh: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """A sized sweep. `wanted` is what would have been sized without a budget."""

    extent: Extent
    wanted: Extent
    cost: Cost
    train: int
    validation: int
    batch: int
    length: int
    total_steps: int
    rates: tuple[float, ...]
    ranks: tuple[int, ...]
    dropouts: tuple[float, ...]
    rungs: Rungs | None
    pack: int
    fits: int | None
    devices: int
    tokens_per_s: float
    power_w: float
    guess: bool


def sized(survey: Survey, budget: Budget) -> Sizing:
    """Return the largest sweep that a budget holds. Raise `SpecError` if not even one experiment fits it or the memory.

    The survey must be whole: model, data and device.
    """
    assert survey.model and survey.data and survey.device, "a survey without an error is whole"
    sizer = _Sizer(survey.model, survey.data, survey.device, survey.memory)
    wanted, best = sizer.wanted(), None
    extents = sizer.extents() if budget.hours or budget.grams else iter((wanted,))
    for extent in extents:
        best = replace(sizer.size(extent), wanted=wanted)
        if not _over(best, budget):
            return best
    assert best is not None
    raise SpecError(
        f"the budget is too small for even one experiment: {best.total_steps} steps of {best.batch} samples take about "
        f"{_short(best.cost.hours)}{_grams(best, budget)}, and {_fill(best):.0%} of a budget is planned for; give "
        f"{_least(best, budget)}, or take less data or a smaller model"
    )


def _over(one: Sizing, budget: Budget) -> bool:
    fill = _fill(one)
    hours, grams = budget.hours, budget.grams
    return (hours is not None and one.cost.hours > fill * hours) or (
        grams is not None and one.cost.kwh * (budget.intensity or 0.0) > fill * grams
    )


def _fill(one: Sizing) -> float:
    return FILL_GUESSED if one.guess else FILL


def _grams(one: Sizing, budget: Budget) -> str:
    return "" if budget.intensity is None else f" and emit about {one.cost.kwh * budget.intensity:.3g} g"


def _least(one: Sizing, budget: Budget) -> str:
    least = []
    if budget.hours is not None:
        least.append(f"--hours {_up(one.cost.hours / _fill(one))}")
    if budget.grams is not None and budget.intensity is not None:
        least.append(f"--grams {_up(one.cost.kwh * budget.intensity / _fill(one))}")
    return " and ".join(least)


def _up(value: float) -> str:
    """Return a number of two digits that is not below `value`: two digits round by 5 % at most."""
    return f"{float(f'{value * 1.06:.2g}'):g}"


def _short(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 1 else f"{hours * 60:.3g} minutes"


def width_power(architecture: str) -> float:
    """Return the power of 2,000 / width in the learning rate of a family of models."""
    return next(power for family, power in WIDTH.items() if architecture.startswith(family))


class _Sizer:
    """What is the same for all sizes of a sweep."""

    def __init__(self, model: ModelFacts, data: DataFacts, device: DeviceFacts, memory: MemoryFacts | None):
        self.model, self.data, self.device, self.memory = model, data, device, memory
        longest = min(LONGEST, model.context or LONGEST)
        wanted = data.lengths[-2]  # the 99th percentile: about one sample in a hundred is cut
        self.length = min(longest, max(LENGTHS, ceil(wanted / LENGTHS) * LENGTHS))
        self.batch = 4 if data.train < 160 else 16 if data.train > 8000 else 8
        one = [speed.tokens_per_s for speed in device.speeds if speed.members == 1]
        self.guess = not one
        # of a frozen base's weights forward and backward take two operations each, and no slope of their own
        self.tokens_per_s = one[0] if one else FLOPS[device.kind] / (4 * model.parameters)
        self.power_w = device.power_w or (GPU_W if device.kind == "cuda" else CORE_W)

    def wanted(self) -> Extent:
        """Return what is tried without a budget: twelve experiments, fewer passes over much data."""
        epochs = 3 if self.data.train < 10_000 else 2 if self.data.train < 50_000 else 1
        return Extent(6, 2, 1, epochs)

    def extents(self) -> Iterator[Extent]:
        """Yield what may be tried, the largest first: what matters least is given up first.

        Dropout and more seeds go before ranks, ranks before passes over the data, these before learning rates.
        """
        wanted = self.wanted()
        epochs = wanted.epochs
        yield Extent(6, 2, 2, epochs, seeds=3)
        yield Extent(6, 2, 1, epochs, seeds=3)
        yield wanted
        yield Extent(6, 1, 1, epochs)
        for passes in range(epochs, 0, -1):
            yield from (Extent(rates, 1, 1, passes) for rates in (5, 4))
        share = Fraction(1)
        while self.data.train * share / 2 >= LEAST_SAMPLES:
            share /= 2
            yield Extent(4, 1, 1, 1, share)
        yield from (Extent(rates, 1, 1, 1, share) for rates in (3, 2, 1))

    def size(self, extent: Extent) -> Sizing:
        """Return a sweep of this extent with its cost. Raise `SpecError` if the memory holds not even one member."""
        train = max(1, int(self.data.train * extent.share))
        validation = self.data.validation if self.data.own else min(self.data.validation, MOST_VALIDATION, train)
        total = ceil(Fraction(train, self.batch)) * extent.epochs
        ranks, pack = self.ranks(extent.ranks), 1
        fits = self.fits(max(ranks))
        if fits is not None:
            pack = max(1, min(fits, ceil(extent.experiments / self.device.count)))
        rungs: Rungs | None = adapted(DEFAULT, extent.experiments, total, round(Recipe().warmup * total))
        if rungs is not None and (not rungs.at or total <= len(rungs.at)):
            rungs = None
        cost = self.cost(extent, total, validation, rungs, pack)
        whole = self.cost(extent, total, validation, None, pack)
        if whole.hours <= cost.hours:  # each rung is a restart, which a short sweep does not win back
            rungs, cost = None, whole
        return Sizing(
            extent, extent, cost, train, validation, self.batch, self.length, total,
            self.rates(extent.rates), ranks, (0.05,) if extent.dropouts == 1 else (0.0, 0.1),
            rungs, pack, fits, self.device.count, self.tokens_per_s, self.power_w, self.guess,
        )  # fmt: skip

    def ranks(self, count: int) -> tuple[int, ...]:
        """Return the smallest rank with a weight for each learned token, at least 16, and if two are asked, a fourth.

        A second rank shows whether capacity matters; above 16 it is the half.
        """
        learned = self.data.train * self.data.cut_to(self.length) * self.data.learned
        enough = next((r for r in RANKS if r * self.model.per_rank >= learned), RANKS[-1])
        return (enough,) if count == 1 else (8, 32) if enough == RANKS[0] else (enough // 2, enough)

    def rates(self, count: int) -> tuple[float, ...]:
        """Return learning rates around the one to be expected, a factor of 2 apart (3 where there are few)."""
        middle = RATES * (2000 / self.model.hidden) ** width_power(self.model.architecture)
        factor = 3.0 if count <= 3 else 2.0
        return tuple(float(f"{middle * factor ** (at - (count - 1) / 2):.1e}") for at in range(count))

    def fits(self, r: int) -> int | None:
        """Return how many adapters of rank `r` fit; None without a memory model. Raise `SpecError` for none."""
        if self.memory is None:
            return None
        memory = self.device.memory - (PROCESS if self.device.kind == "cpu" else 0.0)
        fits = self.memory.fits(memory, r, self.length)
        if fits < 1:
            raise SpecError(
                f"not even one adapter of rank {r} and one sample of {self.length} tokens fit beside the base: it "
                f"takes {self.memory.base / 1e9:.2f} GB, {self.device.name} has {self.device.memory / 1e9:.2f} GB, of "
                f"which {self.memory.headroom:.0%} stays free; take a smaller model or a larger device"
            )
        return fits

    def cost(self, extent: Extent, total: int, validation: int, rungs: Rungs | None, pack: int) -> Cost:
        """Return what a sweep takes, counted as `plan` counts it."""
        each = self.data.cut_to(self.length)
        starting = STARTING_S + (self.memory.base if self.memory else 4 * self.model.parameters) / WEIGHTS_READ
        # scoring passes forward only, a third of a training pass, once with the weights and once with their average
        scoring = 2 * validation * each / (3 * self.tokens_per_s)
        one = starting + total * self.batch * each / self.tokens_per_s + scoring
        alive, runs, before, restarts = extent.experiments, 0.0, 0, 0
        for step, keep in zip(steps(rungs, total), rungs.keep, strict=True) if rungs else ():
            runs += alive * ((step - before) / total + scoring / one)
            alive, before = keep, step
            restarts += ceil(alive / min(pack, ceil(alive / self.device.count)))
        runs += alive * (total - before) / total
        runs += min(3, extent.experiments) * (extent.seeds - 1)
        again = restarts * RESTART.total_seconds()
        hours = (max(runs / self.device.count, 1.0) * one + again / self.device.count) / 3600
        return Cost(one, runs, hours, (runs * one + again) / 3600 * self.power_w / 1000)
