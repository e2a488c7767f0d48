"""The configuration that a sweep recommends: the winner, its confidence interval, and its caveats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.accounting.winner_caveats import winner_caveats
from gridsweep.selection.paired_differences import difference
from gridsweep.selection.winners import by_seed
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Base, Dataset, LoraParams, Model, Recipe, number
from gridsweep.sweep.losses import Losses

FEW_SAMPLES = 100
"""With fewer validation samples than this, an interval is wide and depends on single samples."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The winner with everything needed to train it again elsewhere.

    `low` to `high` is the 95 % confidence interval of the validation loss over validation samples, and over seeds if
    there are several; None if losses per sample were not kept. `others` counts the other experiments trained to the
    end, `tied` are those statistically tied with the winner; None if unknown. `left` experiments have not ended.
    `layers` are the numbers of the decoder layers with adapters; None for all or unknown. `modules` are the names of
    the modules with adapters, `excluded` those that bear such a name and have none; None if unknown.
    """

    id: str
    sweep: str
    params: LoraParams
    seed: int
    seeds: int
    base: Base
    model: Model
    dataset: Dataset
    recipe: Recipe
    total_steps: int
    validation_loss: float
    low: float | None
    high: float | None
    initial_loss: float | None
    others: int
    tied: tuple[Row, ...] | None
    of: int
    left: int
    rungs: bool
    caveats: tuple[str, ...]
    facts: Mapping[str, str]
    layers: tuple[int, ...] | None = None
    modules: tuple[str, ...] | None = None
    excluded: tuple[str, ...] | None = None

    @property
    def warmup_steps(self) -> int:
        """The number of steps over which the learning rate rises."""
        return round(self.recipe.warmup * self.total_steps)


def recommend(state: State, report: Report) -> Recommendation | None:
    """Return the recommendation of a sweep so far; None before any experiment has a validation loss.

    Where the adapters are is told by the adapter's own files.
    """
    best = report.best
    if best is None or best.loss is None:
        return None
    sweep, experiment = state.sweep, state.standings[best.experiment].experiment
    runs = by_seed(state).get(best.experiment, {experiment.seed: state.standings[best.experiment]})
    low, high = _interval(runs)
    rivals = [row for row in report.rows if row.place is not None and row.experiment != best.experiment]
    known = best.first is not None or report.loss_noise is not None or not rivals
    return Recommendation(
        id=best.experiment,
        sweep=sweep.name,
        params=experiment.params,
        seed=experiment.seed,
        seeds=best.seeds,
        base=experiment.base,
        model=sweep.model,
        dataset=sweep.dataset,
        recipe=sweep.recipe_of(experiment),
        total_steps=sweep.total_of(experiment),
        validation_loss=best.loss,
        low=low,
        high=high,
        initial_loss=best.initial_loss,
        others=len(rivals),
        tied=tuple(row for row in rivals if row.tied) if known else None,
        of=len(state.standings),
        left=state.left,
        rungs=sweep.rungs is not None,
        caveats=tuple(_caveats(state, report, best, runs)),
        facts=report.facts,
    )


def _caveats(state: State, report: Report, best: Row, runs: Mapping[int, Standing]) -> list[str]:
    said = []
    if state.left:
        said.append(f"{state.left} of {len(state.standings)} experiments have not ended: this is the best so far.")
    if failed := state.count("failed"):
        said.append(f"{failed} of {len(state.standings)} experiments failed and were not compared.")
    if cancelled := state.count("cancelled"):
        said.append(f"{cancelled} of {len(state.standings)} experiments were cancelled and were not compared.")
    if best.base == "4-bit":
        said.append(
            "Ranked on a proxy: all experiments were trained over the base in 4 bits (NF4); over the full base another "
            "configuration may be best. When all have ended, the winner is trained again over the full base."
        )
    elif state.sweep.proxied:
        said.append("Ranked on a proxy, the base in 4 bits (NF4); only the winner was trained over the full base.")
    said += winner_caveats(state, report.rows[:1])
    samples = {len(losses.values) for losses in _losses(runs).values()}
    if samples and min(samples) < FEW_SAMPLES:
        said.append(f"Only {min(samples)} validation samples: differences between experiments are imprecise.")
    noise = report.loss_noise
    if best.seeds < 2 and noise is None:
        said.append("Trained with one seed; the effect of another seed on the loss is unknown. Set `repeats: 3`.")
    elif best.seeds < 2 and noise is not None:
        said.append(f"Trained with one seed; another moves the loss by up to {number(noise)} (stated in the spec).")
    return said


def _interval(runs: Mapping[int, Standing]) -> tuple[float | None, float | None]:
    """Return the confidence interval of a mean loss: the interval of its difference from 0 on the same samples."""
    kept = _losses(runs)
    if len(kept) != len(runs):
        return None, None
    nothing = {seed: Losses((0.0,) * len(losses.values), losses.tokens) for seed, losses in kept.items()}
    try:
        low, high = difference(kept, nothing).interval()
    except ValueError:  # other samples, or a loss that is not finite
        return None, None
    return (low, high) if isfinite(low) and isfinite(high) else (None, None)


def _losses(runs: Mapping[int, Standing]) -> dict[int, Losses]:
    return {seed: run.outcome.losses for seed, run in runs.items() if run.outcome and run.outcome.losses}
