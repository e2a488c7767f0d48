"""Plans: what a sweep would do on its forecast, what that saves, and what cannot be planned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from builders import PROJECT, RELAXED, START, after, grid, make_sweep, rehearsed, starts, sweeps
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.spans import hours
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.cli import cli
from gridsweep.errors import DeadlineError, GridsweepError, SpecError, TraceError
from gridsweep.policy.gates import Threshold
from gridsweep.records import codec
from gridsweep.render import documents
from gridsweep.render import plan as pictures
from gridsweep.schedule.capacity import check_deadline, least_makespan
from gridsweep.simulation.plan import Plan, plan
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier

known = st.lists(st.floats(0, 600), min_size=60, max_size=72)
DAY = [300.0] * 9 + [100.0] * 8 + [300.0] * 7
PLANNED = PolicyChoice("planned")
PATIENT = Tier("patient", 150.0, 24 * HOUR, 1)


class Foreseen:
    """A provider whose forecast is given."""

    def __init__(self, past, future):
        self.past, self.future = past, future

    def read(self, now):
        forecast = Forecast(now, now, HOUR, np.array([self.future]), "given")
        return Reading(Trace(now - (len(self.past) - 1) * HOUR, HOUR, self.past), forecast, Provenance("a test"))


def test_a_plan_is_a_rehearsal_of_the_forecast():
    sweep = make_sweep(2, watts=1000)
    made = plan(sweep, Foreseen([300] * 24, [300, 300, 100, 200] + [400] * 20), START)
    assert [(r.experiment, r.start, r.end, r.emissions_g, r.emissions_now_g) for r in made.rows] == [
        ("e00", after(2), after(3), pytest.approx(100), pytest.approx(300)),
        ("e01", after(3), after(4), pytest.approx(200), pytest.approx(300)),
    ]
    assert (made.finish, made.finish_immediate, made.deadline, made.late) == (after(4), after(2), None, False)
    assert made.reduction == pytest.approx(0.5)
    assert made.energy_kwh == pytest.approx(2.0)
    assert {r.latest_start for r in made.rows} == {after(4)}


def test_a_plan_goes_on_past_its_forecast_with_the_last_day_again():
    sweep = make_sweep(1, tiers=(replace(RELAXED, max_delay=timedelta(days=3)),))
    made = plan(sweep, Foreseen([300] * 24, [300] * 24 + [300] * 23 + [300]), START)
    assert made.rows[0].start == after(72)
    made = plan(sweep, Foreseen([300] * 24, [300] * 23 + [149]), START)
    assert made.rows[0].start == after(23)


def test_a_plan_without_a_forecast_is_refused():
    with pytest.raises(TraceError, match="has less than 24 hours of history"):
        plan(make_sweep(1), grid(100), START)


def test_a_plan_that_misses_its_deadline_says_so():
    sweep = make_sweep(1, hours=3, finish_by=timedelta(hours=2))
    assert plan(sweep, Foreseen([300] * 24, [300] * 24), START).late
    with pytest.raises(DeadlineError, match="move finish_by"):
        check_deadline(sweep, START)


def test_a_deadline_that_can_be_met_is_let_through_and_met():
    sweep = make_sweep(4, devices=2, hours=3, finish_by=timedelta(hours=6))
    check_deadline(sweep, START)
    check_deadline(make_sweep(), START)
    made = plan(sweep, Foreseen([300] * 24, [300] * 24), START)
    assert not made.late and made.finish == made.deadline == after(6)


@given(sweeps(), known)
def test_a_plan_of_running_at_once_reduces_nothing(sweep, grid_levels):
    made = plan(replace(sweep, policy=PolicyChoice("immediate")), Foreseen([1] * 24, grid_levels), START)
    assert made.reduction == 0.0 and made.finish == made.finish_immediate


def test_starts_are_what_the_plan_said():
    future = [300, 300, 100, 200] + [400] * 20
    sweep = make_sweep(2)
    made = plan(sweep, Foreseen([300] * 24, future), START)
    state, _ = rehearsed(sweep, future, Threshold())
    assert {r.experiment: (r.start - START) / HOUR for r in made.rows} == starts(state)


def test_at_once_and_latest_stand_beside_the_planned_start():
    sweep = make_sweep(2, watts=1000, tiers=(RELAXED,), finish_by=timedelta(hours=9))
    made = plan(sweep, Foreseen([300] * 24, [300, 300, 100, 200] + [400] * 20), START)
    assert [row.earliest for row in made.rows] == [after(0), after(1)]
    assert {row.latest_start for row in made.rows} == {after(8)}  # finish_by is nearer than the tier's 12 hours
    assert (made.slow_down, made.devices) == ((made.finish - START) / (2 * HOUR), ("d0",))


def test_idle_power_is_told():
    sweep = make_sweep(1, watts=1000, devices=(Device("a", idle_power_w=50), Device("b", idle_power_w=50)))
    made = plan(sweep, Foreseen([300] * 24, [300, 300, 100, 200] + [400] * 20), START)
    assert made.idle_kwh == pytest.approx(0.05 * 2 + 0.05 * 3)
    assert made.energy_kwh == pytest.approx(1 + made.idle_kwh)


# How sure it is


class Repeating:
    """A provider whose days are all alike, or a little different, with so many days of history and its forecast."""

    def __init__(self, day: Sequence[float], days: int = 60, noise: float = 0.0, step: timedelta = HOUR):
        values = np.tile(day, days + 1) + np.random.default_rng(1).normal(0, 1, len(day) * (days + 1)) * noise
        self.trace = Trace(START - days * 24 * HOUR, step, values)
        self.day = day

    def read(self, now):
        from gridsweep.carbon.forecaster import from_history

        past = self.trace.between(self.trace.start, now + timedelta(microseconds=1))
        return Reading(past, lambda: from_history(past, now, timedelta(hours=96)), Provenance("a test"))


def test_where_every_day_is_the_same_the_past_saved_what_is_expected():
    made = plan(make_sweep(3, tiers=(PATIENT,), policy=PLANNED), Repeating(DAY), START)
    assert made.reduction == pytest.approx(2 / 3)
    assert (made.saving_p10, made.saving_p50, made.saving_p90) == pytest.approx((made.reduction,) * 3)
    assert made.saving_from == "the best placement in 28 scenarios from recent weeks"
    assert (made.past_p10, made.past_p50, made.past_p90) == pytest.approx((made.reduction,) * 3)
    assert made.past_from == "the same sweep at this hour on 12 days of the past 5 weeks"
    assert made.notes == ()


def test_a_plan_of_rungs_says_that_it_cannot_know_who_goes_on():
    sweep = make_sweep(4, tiers=(PATIENT,), policy=PLANNED, rungs=Rungs((0.5,), (2,)), pack=4, finish_by=20 * HOUR)
    made = plan(sweep, Repeating(DAY), START)
    assert len(made.rows) == 4 and sum(row.energy_kwh for row in made.rows) == pytest.approx(made.energy_kwh)
    assert made.energy_kwh == pytest.approx(3 * 0.1) and not made.late
    assert any("survivors of rungs are unknown" in note for note in made.notes)


@pytest.mark.parametrize("swing", [0.0, 3.0, 10.0, 30.0, 200.0])
def test_it_waits_exactly_where_half_of_the_courses_it_tells_save_enough(swing):
    day = [300 - swing * (8 <= hour < 14) for hour in range(24)]
    made = plan(make_sweep(3, tiers=(PATIENT,), policy=PLANNED), Repeating(day, noise=0.1), START)
    waits = any(row.start != row.earliest for row in made.rows)
    assert waits == (made.saving_p50 >= 0.05)


def test_the_band_of_each_experiment_holds_what_it_is_expected_to_emit():
    made = plan(make_sweep(3, tiers=(PATIENT,), policy=PLANNED), Repeating(DAY, noise=20), START)
    for row in made.rows:
        assert row.emissions_low_g < row.emissions_g < row.emissions_high_g
    assert made.emissions_low_g < made.emissions_g < made.emissions_high_g
    assert made.emissions_low_g == pytest.approx(sum(row.emissions_low_g for row in made.rows))
    assert made.saving_p10 < made.saving_p50 < made.saving_p90
    now = round((START - made.intensity_start) / HOUR)
    assert made.intensity_low[:now] == (None,) * now and made.intensity_low[now + 5] < made.intensity[now + 5]


def test_the_spread_comes_from_the_paths_where_the_past_is_short():
    paths = np.array([[300.0] * 12 + [level] * 36 for level in (60, 90, 120, 150, 180, 210)])

    class Short:
        def read(self, now):
            given = Forecast(now, now, HOUR, paths, "given")
            return Reading(Trace(now - 23 * HOUR, HOUR, [300.0] * 24), given, Provenance("a test"))

    made = plan(make_sweep(1, tiers=(PATIENT,), policy=PolicyChoice("planned", {"min_saving": 0})), Short(), START)
    assert (made.rows[0].start, made.reduction) == (after(12), pytest.approx(1 - 135 / 300))
    assert made.saving_p50 == pytest.approx(1 - 135 / 300)
    assert made.saving_p10 == pytest.approx(1 - 195 / 300)
    assert "6 scenarios" in made.saving_from


def test_a_single_course_says_nothing_of_the_spread():
    made = plan(make_sweep(1), Foreseen([300] * 24, [300, 300, 100, 200] + [400] * 20), START)
    assert (made.saving_p10, made.saving_p50, made.saving_p90, made.saving_from) == (None, None, None, "")
    assert made.emissions_low_g is made.rows[0].emissions_high_g is None
    assert any("no 80 % interval" in note for note in made.notes)


# What a reader must know


def test_on_a_flat_grid_it_says_that_waiting_saves_too_little():
    made = plan(make_sweep(3, tiers=(PATIENT,), policy=PLANNED), Repeating([200.0] * 24), START)
    assert "waiting would save less than 5.0 %: all work runs at once" in made.notes
    assert made.finish == made.finish_immediate and made.reduction == 0
    stubborn = plan(make_sweep(1, tiers=(PATIENT,)), Repeating([200.0] * 24), START)  # waits for 150 g
    assert "waiting is not worth it: 0.0 % less than at once, 24 h later" in stubborn.notes


def test_start_deadlines_that_the_devices_cannot_hold_are_listed():
    sweep = make_sweep(6, hours=2)  # each by hour 4, on one device
    made = plan(sweep, Foreseen([300] * 24, [300] * 48), START)
    late = {row.experiment: row.late_h for row in made.rows if row.late_h}
    assert made.late and not made.misses_finish_by
    assert late and max(late.values()) == (max(row.start for row in made.rows) - after(4)) / HOUR
    (note,) = [note for note in made.notes if "start after their deadline" in note]
    assert f"{len(late)} experiments start after their deadline, on 1 device: e05 {hours(max(late.values()))}" in note


def test_a_forecast_that_is_shorter_than_the_horizon_is_said_to_go_on():
    sweep = make_sweep(1, tiers=(replace(RELAXED, max_delay=timedelta(days=3)),))
    short = plan(sweep, Foreseen([300] * 24, [300] * 24), START)
    assert "the forecast ends on 2024-06-11 00:00 UTC; after that its last day is repeated" in short.notes
    long = plan(sweep, Foreseen([300] * 24, [300] * 96), START)
    assert not any("last day" in note for note in long.notes)


def test_what_meets_a_hole_of_the_forecast_is_in_no_emissions():
    hole = float("nan")
    sweep = make_sweep(2, policy=PolicyChoice("immediate"), watts=1000)
    made = plan(sweep, Foreseen([300] * 24, [300, hole] + [300] * 46), START)
    assert [row.emissions_g for row in made.rows] == [pytest.approx(300), None]
    assert made.unknown_kwh == pytest.approx(2.0) and made.reduction != made.reduction
    assert any("1 unknown" in note and "emissions exclude" in note for note in made.notes)
    with pytest.raises(TraceError, match="too little for a forecast"):
        plan(sweep, Foreseen([300] * 24, [hole] * 48), START)


def test_a_band_without_a_bound_is_none():
    paths = np.full((8, 48), 300.0)
    paths[3:, 20] = np.inf

    class Wild:
        def read(self, now):
            given = Forecast(now, now, HOUR, paths, "given", np.full(48, 300.0))
            return Reading(Trace(now - 23 * HOUR, HOUR, [300.0] * 24), given, Provenance("a test"))

    made = plan(make_sweep(2), Wild(), START)
    assert made.emissions_high_g is None and made.saving_p50 is None and made.intensity_low == ()
    assert any("no 80 % interval" in note for note in made.notes)
    assert codec.loads(Plan, codec.dumps(made)) == made


# What cannot be planned


@pytest.mark.parametrize("check", [check_deadline, lambda sweep, now: plan(sweep, grid(100), now)])
def test_work_without_length_or_device_is_refused(check):
    with pytest.raises(SpecError, match="give a positive estimate"):
        check(make_sweep(hours=0), START)
    with pytest.raises(SpecError, match="has no device"):
        check(make_sweep(devices=()), START)


def test_a_deadline_in_the_past_is_refused():
    with pytest.raises(DeadlineError, match=r"2024-06-09 22:30 UTC, which is 1\.5 h before the sweep begins"):
        check_deadline(make_sweep(finish_by=after(-1.5)), START)


def test_more_work_than_fits_is_refused_and_what_just_fits_is_not():
    check_deadline(make_sweep(4, hours=1.5, devices=2, finish_by=timedelta(hours=3)), START)
    with pytest.raises(
        DeadlineError, match=r"5 experiments of 1\.5 h on 2 devices take 4\.5 h, and finish_by leaves 3 h"
    ):
        check_deadline(make_sweep(5, hours=1.5, devices=2, finish_by=timedelta(hours=3)), START)


def test_a_slow_device_that_would_only_delay_is_not_counted():
    devices = (Device("slow", speed=0.1), Device("fast", speed=10.0))
    assert least_makespan(make_sweep(3, hours=10, devices=devices), START) == timedelta(hours=3)


# Pictures and JSON


def test_a_plan_comes_back_from_the_codec_and_is_a_document():
    made = plan(make_sweep(3, tiers=(PATIENT,), policy=PLANNED), Repeating(DAY, noise=20), START)
    assert codec.loads(Plan, codec.dumps(made)) == made
    told = json.loads(documents.text(made))
    assert told["schema_version"] == 4
    assert {"sweep", "policy", "issued_at", "forecast", "source", "quality", "experiments", "finish",
            "immediate_finish", "deadline", "energy_kwh", "emissions_g",
            "immediate_emissions_g"} <= set(told)  # fmt: skip
    assert {"id", "tier", "device", "start", "end", "latest_start", "why", "energy_kwh", "immediate_emissions_g",
            "emissions_g"} <= set(told["experiments"][0])  # fmt: skip


@pytest.mark.parametrize("devices", [2, 30])
def test_a_picture_is_drawn_of_a_few_devices_and_of_many(tmp_path, devices):
    matplotlib = pytest.importorskip("matplotlib.image")
    sweep = make_sweep(5, name="a $x_1$ y", tiers=(PATIENT,), devices=devices, finish_by=timedelta(hours=30))
    pictures.png(plan(sweep, Repeating(DAY, noise=20), START), tmp_path / "plan.png")
    height, width, _ = matplotlib.imread(tmp_path / "plan.png").shape
    assert width == 1500 and height > 500
    with pytest.raises(GridsweepError, match=r"name a \.png file"):
        pictures.png(plan(sweep, Repeating(DAY), START), Path(tmp_path / "nowhere" / "plan.png"))


RUNGS = Rungs((0.25, 0.5), (4, 2))


def legged(devices: int = 2, hours: float = 6) -> Plan:
    """Six experiments through two rungs, for some of which they wait for the sun of another day."""
    sweep = make_sweep(
        6, hours=hours, steps=8, pack=3, rungs=RUNGS, tiers=(PATIENT, RELAXED), policy=PLANNED, devices=devices
    )
    return plan(sweep, Repeating(DAY), START)


def test_a_row_holds_every_leg_of_its_experiment():
    made = legged()
    for row in made.rows:
        assert (row.legs[0].start, row.legs[-1].end, row.legs[0].device) == (row.start, row.end, row.device)
        assert [leg.from_step for leg in row.legs] == [0, 2, 4][: len(row.legs)]
        assert all(leg.to_step == after.from_step for leg, after in pairwise(row.legs))
    assert sorted(len(row.legs) for row in made.rows) == [1, 1, 2, 2, 3, 3]
    longest = next(row for row in made.rows if len(row.legs) == 3)
    worked = sum((leg.end - leg.start for leg in longest.legs), timedelta(0))
    assert worked < (longest.end - longest.start) / 2  # most of the time between its ends it waits


def test_the_table_lists_every_leg(capsys):
    made = legged()
    pictures.text(made)
    told = capsys.readouterr().out
    assert told.count("from step 2") == 4 and told.count("from step 4") == 2
    for row in made.rows:
        for leg in row.legs:
            assert f"{leg.start:%b %d %H:%M}  {leg.end:%b %d %H:%M}" in told


@pytest.mark.parametrize("devices", [2, 30])
def test_the_picture_is_blank_where_nothing_runs(devices):
    number = pytest.importorskip("matplotlib.dates").date2num
    made = legged(devices, hours=6 if devices == 2 else 20)
    work = pictures.picture(made).axes[1]
    legs = {(leg.device, number(leg.start), number(leg.end)) for row in made.rows for leg in row.legs}
    if devices == 2:
        spans = {(round(bar.get_x(), 6), round(bar.get_x() + bar.get_width(), 6)) for bar in work.patches}
        assert spans == {(round(start, 6), round(end, 6)) for _, start, end in legs}
        return
    steps = [step.get_data() for step in work.patches]
    middles = [(a + b) / 2 for a, b in pairwise(steps[0].edges)]
    busy = [sum(start < middle < end for _, start, end in legs) for middle in middles]
    assert np.max([step.values for step in steps], axis=0).tolist() == pytest.approx(busy) and 0 in busy


@pytest.mark.parametrize("hours", [0.1, 0.5, 1, 6])
def test_a_number_in_the_picture_lies_within_its_bar_or_behind_it(hours):
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    made = legged(1, hours=hours)
    figure = pictures.picture(made)
    agg.FigureCanvasAgg(figure).draw()
    work = figure.axes[1]
    bars = [bar.get_window_extent() for bar in work.patches]
    for text in work.texts:
        drawn = text.get_window_extent()
        if text.get_color() == "white":
            assert any(bar.x0 <= drawn.x0 and drawn.x1 <= bar.x1 for bar in bars), (hours, text.get_text())
        else:
            assert not any(bar.x0 + 1 < drawn.x1 and drawn.x0 < bar.x1 - 1 for bar in bars), (hours, text.get_text())
    together = {(leg.device, leg.start): 0 for row in made.rows for leg in row.legs}
    for leg in (leg for row in made.rows for leg in row.legs):
        together[leg.device, leg.start] += 1
    if hours == 6:
        assert sorted(text.get_text() for text in work.texts) == sorted(str(n) for n in together.values() if n > 1)


def test_no_line_between_the_tiers_strikes_through_a_number():
    pytest.importorskip("matplotlib")
    work = pictures.picture(legged()).axes[1]
    parts = [bar for bar in work.patches if bar.get_facecolor()[3] > 0]
    assert {bar.get_linewidth() for bar in parts} == {0}
    assert {round(bar.get_height(), 6) for bar in work.patches if bar not in parts} == {pictures.HEIGHT}


def test_the_command_writes_the_plan_and_draws_it(tmp_path):
    pytest.importorskip("matplotlib")
    demo = PROJECT / "examples" / "demo.yaml"
    asked = ["plan", str(demo), "--out", str(tmp_path / "plan.json"), "--png", str(tmp_path / "plan.png")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0 and f"wrote {tmp_path / 'plan.png'}" in done.output
    made = json.loads((tmp_path / "plan.json").read_text())
    assert len(made["experiments"]) == 21 and (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    done = CliRunner().invoke(cli, ["plan", str(demo), "--out", str(tmp_path / "nowhere" / "plan.json")])
    assert isinstance(done.exception, GridsweepError) and "name another file" in str(done.exception)


def test_a_plan_in_words(capsys):
    sweep = make_sweep(3, tiers=(PATIENT,), policy=PLANNED)
    pictures.text(plan(sweep, Repeating(DAY, noise=20), START))
    told = capsys.readouterr().out
    assert "Jun 10 00:00  Jun 10 1" in told  # e00 could begin at midnight, and waits for the sun
    assert "(p10 / p50 / p90): the same sweep at this hour" in told
    assert "done after" in told and "times as long" in told
