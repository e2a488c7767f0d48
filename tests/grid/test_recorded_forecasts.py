"""Recorded forecasts: how a file is read, and what a policy is shown of it."""

from datetime import timedelta

import numpy as np
import pytest

from builders import START, make_sweep
from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import SpecError, TraceError
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.grid.recorded_forecasts import HORIZON, Recorded, open_recorded, open_replay, read_forecasts
from gridsweep.simulation.backtest import simulate
from gridsweep.simulation.conditions import Conditions
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier
from weather import weather

HEADER = "issued,timestamp,forecast,actual"
DAY = timedelta(days=1)


def stamp(moment):
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def rows(actual, expected, issues, leads=96):
    """A forecast a day: `expected(issue, slot)`, beside what came."""
    for issue in range(issues):
        for slot in range(24 * issue, min(len(actual), 24 * issue + leads)):
            moments = f"{stamp(START + issue * DAY)},{stamp(START + slot * HOUR)}"
            yield f"{moments},{expected(issue, slot):.3f},{actual[slot]:.3f}"


def written(path, lines, header=HEADER):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def file(tmp_path):
    """Forty days; every forecast is right but for 20 g too much at its first hour, fading."""
    actual = weather(3, 24 * 40)
    right = rows(actual, lambda issue, slot: actual[slot] + 20 * np.exp(-(slot - 24 * issue) / 24), 38)
    return written(tmp_path / "ZONE_forecast96h.csv", right), actual


# The file


def test_the_trace_is_what_came(file):
    path, actual = file
    trace, issues = read_forecasts(path)
    assert (trace.start, trace.step, len(issues)) == (START, HOUR, 38)
    assert trace.values == pytest.approx(actual, abs=1e-3)
    assert issues[3].issued_at == START + 3 * DAY and len(issues[3].mean) == 96


def test_the_order_of_rows_and_columns_does_not_matter(file, tmp_path):
    path, _ = file
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    turned = [",".join((d, "x", c, b, a)) for a, b, c, d in reversed(lines)]
    other = written(tmp_path / "other.csv", turned, "actual,note,forecast,timestamp,issued")
    (trace, issues), (again, reissued) = read_forecasts(path), read_forecasts(other)
    assert (trace.values == again.values).all()
    assert [issue.issued_at for issue in issues] == [issue.issued_at for issue in reissued]
    assert all((a.paths == b.paths).all() for a, b in zip(issues, reissued, strict=True))


def test_what_is_left_empty_is_unknown(tmp_path):
    lines = [
        f"{stamp(START)},{stamp(START + i * HOUR)},{'' if i == 1 else 100},{'' if i == 2 else 90}" for i in (0, 1, 2, 4)
    ]
    trace, (issue,) = read_forecasts(written(tmp_path / "x.csv", lines))
    assert np.isnan(trace.values).tolist() == [False, False, True, True, False]
    assert np.isnan(issue.mean.values).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["2024-06-10T00:00:00,2024-06-10T00:00:00Z,1,1"], r"x.csv:2: `2024-06-10T00:00:00` has no time zone"),
        (["2024-06-10T00:00:00Z,2024-06-10T00:00:00Z,much,1"], "x.csv:2: `much` is no number"),
        (["2024-06-10T00:00:00Z,2024-06-10T00:00:00Z,1,-1"], "x.csv:2: -1.0 is negative"),
        (["2024-06-10T00:00:00Z,2024-06-10T00:00:00Z,1"], "x.csv:2: has 3 columns; complete the row"),
        (["2024-06-10T00:00:00Z,2024-06-10T00:00:00Z,1,1"] * 2, "x.csv:3: .* is there already; keep one"),
        (
            [f"2024-06-{day}T00:00:00Z,2024-06-12T00:00:00Z,1,{day}" for day in (10, 11)],
            "x.csv:3: the actual value of 2024-06-12T00:00Z differs from that in line 2",
        ),
        (
            [f"2024-06-10T00:00:00Z,2024-06-10T0{time}:00Z,1,1" for time in ("0:00", "1:00", "2:00", "3:30")],
            "x.csv:5: 2024-06-10T03:30Z is no whole number of steps",
        ),
        (["2024-06-10T00:00:00Z,2024-06-10T00:00:00Z,1,1"], "no forecast has two slots"),
        ([], "has no rows"),
    ],
)
def test_a_bad_file_is_refused_with_the_line_and_what_to_do(tmp_path, lines, words):
    with pytest.raises(TraceError, match=words):
        read_forecasts(written(tmp_path / "x.csv", lines))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(TraceError, match="no column is named `issued`; write the header `issued,timestamp,"):
        read_forecasts(written(tmp_path / "x.csv", [], "timestamp,forecast,actual"))


# What is shown


def test_the_history_is_the_past_only(file):
    path, actual = file
    provider = open_recorded(path)
    now = START + timedelta(days=30, hours=5, minutes=30)
    history = provider.read(now).history
    assert history.end == now + timedelta(minutes=30)
    assert history.values[-1] == pytest.approx(actual[30 * 24 + 5], abs=1e-3)


def test_the_forecast_begins_with_the_known_present_and_goes_on_as_issued(file):
    path, actual = file
    provider = open_recorded(path)
    for hour in (0, 7, 23):
        now = START + timedelta(days=33, hours=hour)
        shown = provider.read(now).forecast.mean
        ahead = actual[33 * 24 + hour :][: 96 - hour]
        assert shown.start == now and len(shown) == HORIZON // HOUR + 1
        assert shown.values[0] == pytest.approx(ahead[0], abs=1e-3)
        assert shown.values[: len(ahead)] == pytest.approx(ahead, abs=0.5)  # bent to the present, it is right


def test_where_the_issued_forecast_ends_our_own_goes_on(file):
    path, _ = file
    now = START + timedelta(days=33, hours=20)
    reading = open_recorded(path).read(now)
    own = from_history(reading.history, now, HORIZON)
    assert reading.forecast.mean.values[-20:] == pytest.approx(own.mean.values[-20:])


def test_a_forecast_that_is_not_issued_yet_is_not_shown(file):
    """Two files that differ only in what is issued from day 35 on show the same until then."""
    path, _ = file
    trace, issues = read_forecasts(path)
    early = Recorded(trace, issues[:35], "zone", "early")
    late = Recorded(trace, issues, "zone", "late")
    for now in (START + timedelta(days=34, hours=23, minutes=59), START + 35 * DAY):
        a, b = (provider.read(now).forecast.mean.values for provider in (early, late))
        assert (a == b).all() == (now < START + 35 * DAY)


def test_a_forecast_issued_within_a_slot_is_shown_from_then_on(file):
    path, _ = file
    trace, issues = read_forecasts(path)
    half = issues[34]
    half.issued_at += timedelta(minutes=30)
    provider = Recorded(trace, issues[:35], "zone", "title")
    slot = START + 34 * DAY
    before, after = (provider.read(slot + timedelta(minutes=m)).forecast.mean.values for m in (0, 30))
    assert not np.array_equal(before, after)


def test_before_the_first_issue_there_is_only_our_own(file):
    path, _ = file
    trace, issues = read_forecasts(path)
    now = START + timedelta(days=5, hours=3)
    recorded = Recorded(trace, issues[20:], "zone", "title").read(now).forecast
    own = TraceProvider(trace, "zone", "title").read(now).forecast
    assert (recorded.mean.values == own.mean.values).all()


def test_on_the_first_day_there_is_only_the_issued_one(file):
    path, actual = file
    shown = open_recorded(path).read(START + 2 * HOUR).forecast.mean
    assert len(shown) == 94 and shown.values == pytest.approx(actual[2:96], abs=0.5)


# In a back-test


def test_a_good_forecast_is_worth_more_than_history(file):
    """One clean hour a day at a time that no day before tells."""
    path, _ = file
    actual = np.full(24 * 40, 400.0)
    hours = np.random.default_rng(5).integers(3, 22, 40)
    actual[24 * np.arange(40) + hours] = 50.0
    written(path, rows(actual, lambda issue, slot: actual[slot], 38))
    sweep = make_sweep(1, tiers=(Tier("day", 100, 24 * HOUR, 1),), policy=PolicyChoice("planned", {"min_saving": 0.0}))
    starts = [START + day * DAY for day in range(30, 36)]
    told = simulate(sweep, open_recorded(path), starts, Conditions(forecast="recorded")).policies[0]
    untold = simulate(sweep, TraceProvider(Trace(START, HOUR, actual), "zone", "title"), starts, Conditions()).policies[
        0
    ]
    assert told.share_of_bound == pytest.approx(1)
    assert untold.share_of_bound < 0.9


def test_another_trace_may_be_what_came(file, tmp_path):
    path, _ = file
    other = tmp_path / "other.csv"
    other.write_text("timestamp,carbon_intensity\n" + "".join(f"{stamp(START + i * HOUR)},{i}\n" for i in range(30)))
    provider = open_replay(str(other), f"recorded:{path}")
    assert provider.trace.values.tolist() == list(range(30))
    assert provider.read(START + 2 * HOUR).history.values.tolist() == [0, 1, 2]
    assert len(open_replay(str(path), f"recorded:{path}").trace) == 24 * 40


@pytest.mark.parametrize("word", ["clairvoyant", "recorded", "recorded:", "file:x.csv"])
def test_another_word_is_refused(word):
    with pytest.raises(SpecError, match="say history, perfect or recorded:FILE"):
        open_replay("solar-valley", word)


def test_without_a_trace_only_recorded_forecasts_can_be_replayed():
    with pytest.raises(SpecError, match="needs a trace; name one with --trace"):
        open_replay(None, "perfect")
