"""Reports to render, made by driving sweeps in a virtual world and giving their ends losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hostile import HOSTILE

from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider, open_trace
from gridsweep.policy.registry import policy_for
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.state.events import Ended, Event, Progressed, Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Dataset, Experiment, LoraParams, Model, Recipe
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.stints import Device, Outcome
from gridsweep.sweep.sweep import CarbonSource, Estimates, PolicyChoice, Replay, Sweep
from gridsweep.sweep.tiers import Tier

START = datetime(2024, 6, 10, 16, tzinfo=UTC)
TIERS = (
    Tier("urgent", 225, timedelta(hours=24), 1),
    Tier("normal", 175, timedelta(hours=48), 2),
    Tier("patient", 125, timedelta(hours=96), 3),
)
POINTS = (
    "16 32 1e-4 .1, 16 64 1e-4 .1, 16 128 1e-4 .1, 16 32 5e-5 .1, 16 32 1e-5 .1, 16 32 1e-4 .05,"
    "16 32 1e-4 .15, 16 64 5e-5 .1, 32 32 1e-4 .1, 32 64 1e-4 .05, 32 64 1e-4 .1, 32 64 5e-5 .1,"
    "32 128 1e-4 .1, 32 64 1e-5 .1, 32 64 1e-4 .15, 32 128 5e-5 .1, 32 128 1e-4 .05, 32 128 1e-4 .15,"
    "32 32 1e-4 .15, 32 128 1e-5 .1, 32 32 5e-5 .15"
)


def tiered(p: LoraParams) -> tuple[str, str]:
    if p.r == 16:
        return "urgent", "r == 16"
    for name, holds in (
        ("alpha == 128", p.alpha == 128),
        ("dropout >= 0.15", p.dropout >= 0.15),
        ("lr <= 1e-5", p.lr <= 1e-5),
    ):
        if holds:
            return "patient", name
    return "normal", "no other rule matched"


def small_sweep(power_w: float = 15.0) -> Sweep:
    """The 21 published points as the demo runs them."""
    model, dataset, recipe = Model("tiny-qwen2"), Dataset("stdlib"), Recipe(steps=35)
    experiments = []
    for point in POINTS.split(","):
        r, alpha, lr, dropout = map(float, point.split())
        params = LoraParams(int(r), alpha, lr, dropout)
        experiments.append(Experiment(experiment_id(params, 42, model, dataset, recipe), params, 42, *tiered(params)))
    estimates = Estimates(timedelta(minutes=90), power_w, 0.004)
    return Sweep(
        "demo", model, dataset, recipe, tuple(experiments), TIERS, estimates,
        (Device("cpu0"), Device("cpu1")), 35, policy=PolicyChoice("threshold"), replay=Replay(START, 300),
        baseline=experiments[0].id,
    )  # fmt: skip


def invented_loss(p: LoraParams) -> float:
    """Depends on alpha and lr; rank and dropout move it by less than the noise."""
    chance = 0.002 * math.sin(p.r + p.alpha + 1e6 * p.lr + 100 * p.dropout)
    return 2.86 - 0.09 * math.log10(p.lr / 1e-4) - 0.08 * math.log10(p.alpha / 32) + chance


FACTS = {
    "device": "cpu",
    "python": "3.11.9",
    "torch": "2.13.0",
    "peft": "0.18.0",
    "dataset_digest": "9f2c1ab407d3e5f6",
}


def finished(events: Iterable[Event], sweep: Sweep, failed: str = "") -> list[Event]:
    """The same events with modelled energy, losses and facts, as a worker would have told them."""
    told: list[Event] = []
    for event in events:
        if isinstance(event, Progressed):
            parts = tuple(Segment(s.start, s.end, s.kwh, "modelled", s.step) for s in event.energy)
            event = replace(event, energy=parts)
        elif isinstance(event, Ended):
            outcomes = tuple(outcome(o, sweep, failed) for o in event.outcomes)
            event = replace(event, outcomes=outcomes, facts=FACTS)
        told.append(event)
    return told


def outcome(o: Outcome, sweep: Sweep, failed: str) -> Outcome:
    if o.experiment == failed:
        return replace(o, status="failed", reason="the training loss is nan at step 35")
    at = invented_loss(sweep.experiment(o.experiment).params)
    return replace(o, train_loss=at - 0.05, validation_loss=at, initial_validation_loss=3.4)


def reported(
    sweep: Sweep,
    provider: TraceProvider,
    start: datetime = START,
    failed: str = "",
    until: datetime | None = None,
) -> Report:
    events: list[Event] = []
    rehearse(sweep, start, provider, policy_for(sweep.policy), journal=events)
    told = finished(events, sweep, failed)
    state = State(e for e in told if until is None or e.at <= until)
    return make_report(state, ledger(state), baseline(state))


@pytest.fixture(scope="session")
def full() -> Report:
    """21 experiments on the bundled grid, one of which failed."""
    sweep = small_sweep()
    return reported(sweep, open_trace("solar-valley"), failed=sweep.experiments[4].id)


@pytest.fixture(scope="session")
def fresh() -> Report:
    """Submitted a moment ago."""
    state = State([Submitted(START, small_sweep())])
    return make_report(state, ledger(state), baseline(state))


@pytest.fixture(scope="session")
def halfway() -> Report:
    return reported(small_sweep(), open_trace("solar-valley"), until=START + 25 * HOUR)


def grid(level: Callable[[int], float], quality: str = "measured") -> TraceProvider:
    return TraceProvider(Trace(START - 48 * HOUR, HOUR, [level(h) for h in range(300)]), "DE", "measured.csv", quality)


@pytest.fixture(scope="session")
def unknown() -> Report:
    """A grid with hours that nobody measured."""
    sweep = replace(small_sweep(), carbon=CarbonSource("trace", "DE", "measured.csv"), replay=None)
    return reported(sweep, grid(lambda h: float("nan") if 50 <= h < 56 else 150.0))


@pytest.fixture(scope="session")
def worse() -> Report:
    """A grid that was cleanest at the start, and work that waited for nothing."""
    sweep = replace(small_sweep(310.0), carbon=CarbonSource("trace", "DE", "measured.csv"), replay=None)
    return reported(sweep, grid(lambda h: 240.0 + 4 * (h - 48)))


@pytest.fixture(scope="session")
def hostile() -> Report:
    """Every name is an attack."""
    sweep = small_sweep()
    experiments = tuple(replace(e, tier=HOSTILE, reason=HOSTILE) for e in sweep.experiments)
    sweep = replace(
        sweep,
        name=HOSTILE,
        model=Model(HOSTILE),
        dataset=Dataset(HOSTILE),
        experiments=experiments,
        tiers=(Tier(HOSTILE, 225, timedelta(hours=24), 1),),
        devices=(Device(HOSTILE), Device("b")),
        carbon=CarbonSource("trace", HOSTILE, "x.csv"),
        policy=PolicyChoice("immediate"),
    )
    made = reported(sweep, grid(lambda h: 200.0, HOSTILE))
    return replace(made, facts={HOSTILE: HOSTILE}, notes=(HOSTILE,), policy=HOSTILE, source=HOSTILE, state=HOSTILE)
