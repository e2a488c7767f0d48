"""The certificate: against brute force, against itself, and against figures worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import DAYS, START, after
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import DeadlineError, TraceError
from gridsweep.optima import Job, Optimum, bound, counts, neighbourhood
from gridsweep.optima.problem import problem_of
from gridsweep.sweep.stints import Device

MINUTE = timedelta(minutes=1)
NEVER = float("inf")
levels = st.lists(st.integers(2, 50).map(lambda tens: 10.0 * tens), min_size=14, max_size=24)
hours = st.lists(st.integers(1, 8).map(lambda halves: halves / 2), min_size=1, max_size=5)


def jobs_of(lengths: Sequence[float], latest: Sequence[float] | None = None) -> list[Job]:
    """Jobs of so many hours, to be started so many hours after START at the latest."""
    bounds = [None] * len(lengths) if latest is None else [after(h) for h in latest]
    return [Job(f"j{i}", h * HOUR, by) for i, (h, by) in enumerate(zip(lengths, bounds, strict=True))]


def alike(n: int, *, watts: float = 425.0, idle: float = 0.0) -> list[Device]:
    return [Device(f"d{i}", power_w=watts, idle_power_w=idle) for i in range(n)]


def check(found: Optimum, jobs: Sequence[Job], devices: Sequence[Device], *, pausing: bool) -> None:
    """A schedule that obeys every rule: a device and a job each do one thing at a time, all is done, in time."""
    for key in ("device", "job"):
        pieces = sorted(found.pieces, key=lambda piece: (getattr(piece, key), piece.start))
        for one, other in pairwise(pieces):
            assert getattr(one, key) != getattr(other, key) or one.end <= other.start
    speeds = {device.name: device.speed for device in devices}
    for job in jobs:
        own = [piece for piece in found.pieces if piece.job == job.name]
        done = sum((piece.end - piece.start) * speeds[piece.device] / HOUR for piece in own)
        assert done == pytest.approx(job.length / HOUR)
        assert pausing or len(own) == 1
        assert min(piece.start for piece in own) >= (job.ready_at or START)
        if job.latest_start and pausing:
            assert max(piece.end for piece in own) <= job.latest_start + job.length / min(speeds.values())
        elif job.latest_start:
            assert own[0].start <= job.latest_start


def whole_by_force(
    lengths: Sequence[Sequence[int]],
    latest: Sequence[int],
    kw: Sequence[Sequence[float]],
    idle: Sequence[float],
    grid: Sequence[float],
    taken: Sequence[int] = (),
) -> float:
    """Every schedule of jobs that are never paused, hour by hour; `lengths` and `kw` by job and device.

    Devices are `taken` for so many hours from the start.
    """
    taken = tuple(taken) or (0,) * len(idle)
    met = [sum(grid[:i]) for i in range(len(grid) + 1)]
    everything = (1 << len(lengths)) - 1

    def until(horizon: int) -> float:
        @lru_cache(None)
        def rest(t: int, busy: tuple[int, ...], done: int) -> float:
            if done == everything:
                return 0.0
            return NEVER if t >= horizon else start(t, 0, busy, done)

        def start(t: int, d: int, busy: tuple[int, ...], done: int) -> float:
            if d == len(idle):
                return rest(t + 1, tuple(max(0, b - 1) for b in busy), done)
            least = start(t, d + 1, busy, done)
            for j, row in enumerate(lengths):
                end = t + row[d]
                if busy[d] == 0 and not done >> j & 1 and t <= latest[j] and end <= horizon:
                    then = start(t, d + 1, (*busy[:d], row[d], *busy[d + 1 :]), done | 1 << j)
                    least = min(least, (kw[j][d] - idle[d]) * (met[end] - met[t]) + then)
            return least

        return rest(0, taken, 0) + sum(idle) * met[horizon]

    first = max(1, *taken)
    return min(until(h) for h in range(first, len(grid) + 1)) if any(idle) else until(len(grid))


def pieces_by_force(
    lengths: Sequence[int], ends: Sequence[int], devices: int, kw: float, grid: Sequence[float]
) -> float:
    """Every choice of jobs for every hour."""

    @lru_cache(None)
    def rest(t: int, left: tuple[int, ...]) -> float:
        if not any(left):
            return 0.0
        able = [j for j, n in enumerate(left) if n and t < ends[j]]
        choices = (c for k in range(min(devices, len(able)) + 1) for c in combinations(able, k))
        return min(
            (len(c) * kw * grid[t] + rest(t + 1, tuple(n - (j in c) for j, n in enumerate(left))) for c in choices),
            default=NEVER,
        ) if t < len(grid) else NEVER  # fmt: skip

    return rest(0, tuple(lengths))


def found_or_never(
    jobs: Sequence[Job], devices: Sequence[Device], grid: Trace, *, pausing: bool = False, taken: Sequence[int] = ()
) -> float:
    free_at = {device.name: START + hours * HOUR for device, hours in zip(devices, taken, strict=bool(taken))}
    try:
        found = bound(jobs, devices, grid, START, pausing=pausing, free_at=free_at)
    except DeadlineError:
        return NEVER
    assert found.proven
    check(found, jobs, devices, pausing=pausing)
    return found.emissions_g


def some_levels(draw: random.Random, most: int) -> list[float]:
    """With many that are equal, every other time."""
    few = draw.random() < 0.5
    return [draw.randint(1, 5) * 80.0 if few else draw.uniform(20, 500) for _ in range(draw.randint(6, most))]


@pytest.mark.parametrize("case", range(150))
def test_equal_jobs_on_equal_devices_are_placed_as_well_as_by_brute_force(case):
    draw = random.Random(case)
    grid, n, m = some_levels(draw, 30), draw.randint(1, 5), draw.randint(1, 2)
    length, idle = draw.randint(1, 5), draw.choice([0.0, 0.0, 60.0, 100.0])
    bounds = [draw.randint(0, len(grid)) for _ in range(3)]
    latest = [draw.choice(bounds) for _ in range(n)]
    found = found_or_never(jobs_of([length] * n, latest), alike(m, idle=idle), Trace(START, HOUR, grid))
    kw = [[0.425] * m] * n
    assert found == pytest.approx(whole_by_force([[length] * m] * n, latest, kw, [idle / 1000] * m, grid), rel=1e-9)


@pytest.mark.parametrize("case", range(150))
def test_unequal_jobs_and_devices_are_placed_as_well_as_by_brute_force(case):
    draw = random.Random(case)
    grid, n, m = some_levels(draw, 30), draw.randint(1, 4), draw.randint(1, 2)
    devices = [
        Device(f"d{i}", None, draw.choice([0.5, 1.0, 2.0]), draw.choice([200, 400]), draw.choice([0, 0, 60]))
        for i in range(m)
    ]
    lengths, latest = [draw.choice([2, 4, 6]) for _ in range(n)], [draw.randint(0, len(grid)) for _ in range(n)]
    kw = [[(device.power_w or 0) / 1000 for device in devices]] * n
    spans = [[int(length / device.speed) for device in devices] for length in lengths]
    forced = whole_by_force(spans, latest, kw, [device.idle_power_w / 1000 for device in devices], grid)
    assert found_or_never(jobs_of(lengths, latest), devices, Trace(START, HOUR, grid)) == pytest.approx(
        forced, rel=1e-9
    )


@pytest.mark.parametrize("case", range(150))
def test_devices_that_are_taken_for_a_while_are_used_as_well_as_by_brute_force(case):
    draw = random.Random(case)
    grid, n, m = some_levels(draw, 24), draw.randint(1, 4), draw.randint(1, 2)
    equal, idle = draw.random() < 0.5, draw.choice([0.0, 0.0, 60.0])
    lengths = [draw.randint(1, 4)] * n if equal else [draw.randint(1, 4) for _ in range(n)]
    latest = [draw.randint(0, len(grid)) for _ in range(n)]
    last = min(len(grid), max(by + length for by, length in zip(latest, lengths, strict=True)))
    taken = [min(last, draw.randint(0, 6)) for _ in range(m)]
    kw, spans = [[0.425] * m] * n, [[length] * m for length in lengths]
    forced = whole_by_force(spans, latest, kw, [idle / 1000] * m, grid, taken)
    found = found_or_never(jobs_of(lengths, latest), alike(m, idle=idle), Trace(START, HOUR, grid), taken=taken)
    assert found == pytest.approx(forced, rel=1e-9)


@pytest.mark.parametrize("case", range(150))
def test_jobs_that_may_pause_are_placed_as_well_as_by_brute_force(case):
    draw = random.Random(case)
    grid, n, m = some_levels(draw, 16), draw.randint(1, 4), draw.randint(1, 3)
    lengths, latest = [draw.randint(1, 4) for _ in range(n)], [draw.randint(0, len(grid)) for _ in range(n)]
    ends = [min(len(grid), by + length) for by, length in zip(latest, lengths, strict=True)]
    found = found_or_never(jobs_of(lengths, latest), alike(m), Trace(START, HOUR, grid), pausing=True)
    assert found == pytest.approx(pieces_by_force(lengths, ends, m, 0.425, grid), rel=1e-9)


@pytest.mark.parametrize("case", range(60))
def test_starts_between_slots_are_as_good_as_by_brute_force_on_a_finer_grid(case):
    """Lengths and the start in steps of 20 minutes, bounds and force in steps of 10."""
    draw = random.Random(case)
    hourly, n, m, late = some_levels(draw, 7), draw.randint(1, 3), draw.randint(1, 2), draw.randint(0, 2)
    tens = [hourly[(2 * late + i) // 6] / 6 for i in range(6 * len(hourly) - 2 * late)]
    same = draw.randint(1, 8)
    lengths = [same if case % 2 else draw.randint(1, 8) for _ in range(n)]
    latest = [draw.randint(0, len(tens)) for _ in range(n)]
    jobs = jobs_of([length / 3 for length in lengths], [by / 6 for by in latest])
    grid = Trace(START - late * 20 * MINUTE, HOUR, hourly)
    forced = whole_by_force([[2 * x] * m for x in lengths], latest, [[0.425] * m] * n, [0.0] * m, tens)
    assert found_or_never(jobs, alike(m), grid) == pytest.approx(forced, rel=1e-9)


def test_two_pieces_around_a_dear_hour_in_closed_form():
    """Two hours at 1 kW over 100, 300, 100, 300: 200 g with a pause, 400 g without."""
    grid, devices = Trace(START, HOUR, [100, 300, 100, 300]), alike(1, watts=1000)
    assert bound(jobs_of([2]), devices, grid, START, pausing=True).emissions_g == pytest.approx(200)
    assert bound(jobs_of([2]), devices, grid, START).emissions_g == pytest.approx(400)


def test_a_job_is_never_on_two_devices_at_once():
    """Three hours on two devices in one cheap hour and three dear ones: one hour of it is cheap, not two."""
    grid = Trace(START, HOUR, [300, 100, 300, 300])
    assert bound(jobs_of([3]), alike(2, watts=1000), grid, START, pausing=True).emissions_g == pytest.approx(700)


def test_the_horizon_may_end_within_a_slot():
    """90 minutes at 1 kW, and 500 W of idling: at 200 then 100, half an hour's wait would cost 50 g and save 50."""
    grid, jobs = Trace(START, HOUR, [200, 100, 100]), jobs_of([1.5])
    for pausing in (True, False):
        found = bound(jobs, alike(1, watts=1000, idle=600), grid, START, pausing=pausing)
        assert (found.finish, found.emissions_g, found.idle_g) == (after(1.5), pytest.approx(250), pytest.approx(0))
    found = bound(jobs, alike(1, watts=1000, idle=300), grid, START)
    assert (found.finish, found.emissions_g, found.idle_g) == (after(2.5), pytest.approx(210), pytest.approx(60))


def test_a_grid_of_starts_may_cost_something():
    grid, jobs = Trace(START, HOUR, [300, 100, 300]), jobs_of([1 / 2] * 2)
    exact = bound(jobs, alike(1, watts=1000), grid, START)
    hourly = bound(jobs, alike(1, watts=1000), grid, START, grid=HOUR)
    assert (exact.emissions_g, hourly.emissions_g) == (pytest.approx(100), pytest.approx(200))


@pytest.mark.parametrize("pausing", [True, False])
def test_on_a_constant_grid_the_optimum_is_to_run_at_once(pausing):
    jobs = jobs_of([1.5] * 7, [24, 12, 48, 24, 12, 48, 24])
    found = bound(jobs, alike(2), Trace(START, HOUR, [217.3] * 60), START, pausing=pausing)
    assert found.emissions_g == pytest.approx(7 * 1.5 * 0.425 * 217.3, rel=1e-12)
    assert found.finish == after(5.5 if pausing else 6)


@settings(max_examples=40)
@given(levels, hours, st.sampled_from([1, 2]), st.booleans(), st.floats(0, 300), st.sampled_from([0.5, 3.0]))
def test_adding_a_constant_adds_its_share_and_scaling_scales(grid, lengths, m, pausing, more, factor):
    def grams(values: list[float]) -> float:
        try:
            return bound(jobs_of(lengths), alike(m), Trace(START, HOUR, values), START, pausing=pausing).emissions_g
        except DeadlineError:
            return NEVER

    plain = grams(grid)
    assert grams([value + more for value in grid]) == pytest.approx(plain + more * 0.425 * sum(lengths))
    assert grams([value * factor for value in grid]) == pytest.approx(plain * factor)


@settings(max_examples=40)
@given(levels, hours, st.sampled_from([0.0, 60.0]), st.booleans())
def test_a_later_deadline_never_costs_and_a_pause_never_does(grid, lengths, idle, pausing):
    jobs, devices, trace = jobs_of(lengths), alike(2, idle=idle), Trace(START, HOUR, grid)

    def grams(end: float, pausing: bool) -> float:
        try:
            return bound(jobs, devices, trace, START, finish_by=after(end), pausing=pausing).emissions_g
        except DeadlineError:
            return NEVER

    found = [grams(end, pausing) for end in (6, 6.7, 9, 13.25)]
    assert all(later <= sooner * (1 + 1e-9) for sooner, later in pairwise(found))
    assert grams(9, True) <= grams(9, False) * (1 + 1e-9)


@pytest.mark.parametrize("case", range(25))
def test_the_fallback_is_close_and_never_above_running_at_once(case):
    draw = random.Random(case)
    devices = [
        Device(f"d{i}", None, draw.choice([0.5, 1.0, 1.5]), draw.choice([200, 400]), 60 * (case % 2)) for i in (0, 1)
    ]
    jobs = jobs_of([draw.randint(3, 48) / 6 for _ in range(draw.randint(2, 6))])
    problem = problem_of(jobs, devices, Trace(START, HOUR, [draw.uniform(20, 500) for _ in range(48)]), START, None)
    kinds = counts.kinds_of(problem)
    starts = counts.instants(problem, kinds)
    exact, atonce = counts.best(problem, kinds, starts or []), neighbourhood.at_once(problem)
    assert exact is not None and atonce is not None
    least, _ = problem.emissions(exact)
    close, _ = problem.emissions(neighbourhood.best(problem))
    assert least * (1 - 1e-9) <= close <= min(1.02 * least, problem.emissions(atonce)[0])


def test_many_jobs_of_many_lengths_are_not_called_proven():
    """The fallback is close to what pausing at will would reach, which is proven."""
    draw = random.Random(1)
    jobs = jobs_of([draw.randint(2000, 9000) / 3600 for _ in range(14)], [draw.choice([12, 24, 40]) for _ in range(14)])
    grid = Trace(START, HOUR, DAYS)
    whole, pieces = (bound(jobs, alike(2), grid, START, pausing=pausing) for pausing in (False, True))
    assert (whole.proven, pieces.proven) == (False, True)
    check(whole, jobs, alike(2), pausing=False)
    check(pieces, jobs, alike(2), pausing=True)
    assert pieces.emissions_g <= whole.emissions_g <= 1.05 * pieces.emissions_g


@pytest.mark.parametrize("case", range(20))
def test_pauses_on_unequal_devices_are_at_least_as_good_as_none(case):
    pytest.importorskip("scipy")
    draw = random.Random(case)
    devices = [Device(f"d{i}", None, draw.choice([0.5, 1.0, 1.7]), 300.0, draw.choice([0, 60])) for i in range(2)]
    jobs = [Job(f"j{i}", draw.randint(20, 200) * MINUTE, device=draw.choice([None, "d0"])) for i in range(4)]
    grid = Trace(START, HOUR, [draw.uniform(20, 500) for _ in range(24)])
    whole, pieces = (bound(jobs, devices, grid, START, pausing=pausing) for pausing in (False, True))
    check(pieces, jobs, devices, pausing=True)
    assert pieces.emissions_g <= whole.emissions_g * (1 + 1e-9)


def test_what_cannot_be_is_refused_in_words():
    grid, two = Trace(START, HOUR, [100.0] * 10), alike(2)
    with pytest.raises(ValueError, match="no device"):
        bound(jobs_of([1]), [], grid, START)
    with pytest.raises(ValueError, match="j0 has length 0:00:00"):
        bound(jobs_of([0]), two, grid, START)
    with pytest.raises(ValueError, match="neither job j0 nor device d0 has a power"):
        bound(jobs_of([1]), [Device("d0")], grid, START)
    with pytest.raises(ValueError, match="may only run on x"):
        bound([Job("j0", HOUR, device="x")], two, grid, START)
    with pytest.raises(TraceError, match="this one runs from"):
        bound(jobs_of([1]), two, grid, after(-1))
    with pytest.raises(TraceError, match=r"1 slots .* unknown"):
        bound(jobs_of([1]), two, Trace(START, HOUR, [100, float("nan"), 100]), START)
    with pytest.raises(DeadlineError, match="j0 takes 11:00:00"):
        bound(jobs_of([11]), two, grid, START)
    for pausing in (True, False):
        with pytest.raises(DeadlineError, match=r"5 jobs of 25\.0 h in total do not fit on 2"):
            bound(jobs_of([5] * 5), two, grid, START, pausing=pausing)


def test_nothing_to_place_emits_nothing():
    found = bound([], alike(1), Trace(START, HOUR, [100]), START)
    assert (found.emissions_g, found.pieces, found.finish) == (0.0, (), START)


def test_a_grid_that_emits_next_to_nothing_is_no_harder_than_one_that_emits_nothing():
    grid = Trace(START, HOUR, [0.0, 0.0, 4.2e-306, 0.0, 0.0, 0.0])
    found = bound(jobs_of([1, 2], [3, 3]), alike(1), grid, START)
    assert found.emissions_g == pytest.approx(0.0, abs=1e-300) and len(found.pieces) == 2
