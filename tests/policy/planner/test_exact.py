"""Plans by the exact optimum, rolled out look by look on a grid that does as expected."""

from __future__ import annotations

import random
from datetime import timedelta
from statistics import fmean

import numpy as np
import pytest

from builders import START, after
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace, ceil_to
from gridsweep.optima import Job, bound
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.policy.planner.exact import placed
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.situation import Busy, Policy, Situation, Start, Wait, Work
from gridsweep.sweep.stints import Device
from gridsweep.sweep.tiers import Tier

TICK = timedelta(minutes=30)
SLOTS = 48
PATIENT = Tier("patient", 200.0, SLOTS * HOUR, 1)
KWH = 0.1
"""Of each hour at work."""


def work(name, hours, by=SLOTS, device=None):
    """To be started so that it ends `by` so many hours after START, on a device of speed 1."""
    kwh = KWH * hours
    return Work(name, PATIENT, START, after(by - hours), 0, 10, hours * HOUR, kwh, device)


def seen(now, waiting, running, devices, trace):
    first = trace.index(now)
    path = Trace(trace.start + first * trace.step, trace.step, trace.values[first:])
    reading = Reading(
        trace.between(trace.start, now + timedelta(microseconds=1)),
        Forecast(now, path.start, path.step, path.values[np.newaxis], "a test"),
        Provenance("a test"),
    )
    by = after(SLOTS)
    return Situation(now, waiting, running, devices, reading, reading.history, deadline=by, tick=TICK, finish_by=by)


def rolled(policy: Policy, works, devices, levels):
    """What a policy emits, asked at ticks, ends and the moments it named; and when each work started, in hours."""
    trace = Trace(START, HOUR, levels)
    left, running, until, grams, begun = list(works), [], {}, 0.0, {}
    now = START
    speeds = {device.name: device.speed for device in devices}
    while left:
        running = [busy for busy in running if busy.expected_end > now]
        for decision in policy.decide(seen(now, left, running, devices, trace)):
            if isinstance(decision, Wait):
                until[decision.experiment] = decision.until
            elif isinstance(decision, Start):
                chosen = next(w for w in left if w.experiment == decision.members[0])
                left.remove(chosen)
                end = now + chosen.duration / speeds[decision.device]
                running.append(Busy(chosen.experiment, decision.device, PATIENT, now, end, False, False))
                begun[chosen.experiment] = (now - START) / HOUR
                power = next(d.power_w for d in devices if d.name == decision.device)
                grams += trace.exposure(now, end).level_hours * (power or 1000 * KWH) / 1000
        moments = [busy.expected_end for busy in running]
        moments += [until[w.experiment] for w in left if w.experiment in until]
        now = min([ceil_to(now, TICK), *(moment for moment in moments if moment and moment > now)])
    return grams, begun


def a_case(number, equal=False):
    """Works, devices and levels: at most 6 stints on at most 2 devices in 48 slots."""
    draw = random.Random(number)
    n, m = draw.randint(2, 6), draw.randint(1, 2)
    hours = [draw.choice([1, 1.5, 2, 3, 4, 6]) for _ in range(n)]
    if equal:
        hours = [hours[0]] * n
    levels = [round(draw.uniform(50, 500)) for _ in range(SLOTS)] + [400] * 60
    devices = tuple(Device(f"d{i}", power_w=100.0) for i in range(m))
    return [work(f"e{i}", length) for i, length in enumerate(hours)], devices, [float(level) for level in levels]


def least(works, devices, levels):
    jobs = [Job(w.experiment, w.duration, w.latest_start) for w in works]
    found = bound(jobs, devices, Trace(START, HOUR, levels), START, finish_by=after(SLOTS))
    assert found.proven
    return found.emissions_g


@pytest.mark.parametrize("number", range(250))
@pytest.mark.parametrize("equal", [True, False])
def test_on_a_grid_that_does_as_expected_the_exact_plan_reaches_the_optimum(number, equal):
    works, devices, levels = a_case(number, equal)
    grams, _ = rolled(Planned(min_saving=0, exact=True), works, devices, levels)
    assert grams == pytest.approx(least(works, devices, levels), rel=1e-9)


def test_the_usual_rule_is_hardly_above_the_optimum_whatever_the_lengths():
    excess = {}
    for equal in (True, False):
        found = []
        for number in range(150):
            works, devices, levels = a_case(number, equal)
            grams, _ = rolled(Planned(min_saving=0, pausing=False), works, devices, levels)
            best = least(works, devices, levels)
            found.append(grams / best - 1)
            for other in (Immediate(), Threshold()):
                assert grams <= rolled(other, works, devices, levels)[0] * (1 + 1e-9)
        excess[equal] = fmean(found)
    print(f"mean excess over the optimum: equal lengths {excess[True]:.2%}, unequal {excess[False]:.2%}")
    assert max(excess.values()) <= 0.02


def test_a_device_that_is_taken_is_planned_from_its_end_on():
    levels = [100.0, 100, 50, 50, 500, 500, 500] + [500.0] * 60
    works, devices = [work("a", 2), work("b", 2)], (Device("d0"), Device("d1"))
    busy = [Busy("x", "d0", PATIENT, START, after(2.5), False, False)]
    pieces = placed(seen(START, works, busy, devices, Trace(START, HOUR, levels)), Trace(START, HOUR, levels))
    assert [(piece.device, (piece.start - START) / HOUR) for piece in pieces] == [("d1", 0), ("d1", 2)]


def test_work_that_fits_nowhere_gets_no_plan_and_the_usual_rule_starts_it_at_once():
    works, devices = [work("a", 30), work("b", 20)], (Device("d0"),)
    levels = [300.0] * 200
    situation = seen(START, works, [], devices, Trace(START, HOUR, levels))
    assert placed(situation, Trace(START, HOUR, levels)) is None
    assert any(isinstance(d, Start) for d in Planned(min_saving=0, exact=True).decide(situation))


def test_an_experiment_that_may_run_on_one_device_only_is_planned_there():
    levels = [50.0] * 4 + [500.0] * 100
    works, devices = [work("a", 2, device="d1"), work("b", 2, device="d1")], (Device("d0"), Device("d1"))
    pieces = placed(seen(START, works, [], devices, Trace(START, HOUR, levels)), Trace(START, HOUR, levels))
    assert {piece.device for piece in pieces} == {"d1"}
