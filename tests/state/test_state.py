from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, URGENT, after, levels, make_sweep, rehearsed, sweeps
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.readings import Provenance
from gridsweep.policy.gates import OnOff
from gridsweep.state.events import (
    ClockAnchored,
    Ended,
    Event,
    Halted,
    Held,
    Lost,
    Observed,
    Paused,
    Pausing,
    Progressed,
    Ranked,
    Requested,
    Resumed,
    Running,
    Segment,
    Stopping,
    Submitted,
)
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint, Member, Outcome, Stint
from gridsweep.sweep.sweep import Replay


def saved(step: int, id: str = "e00") -> Checkpoint:
    return Checkpoint(id, step, f"checkpoints/{step}", "digest")


def requested(number: int = 1, at: float = 0.0, id: str = "e00", from_step: int = 0) -> Requested:
    stint = Stint((Member(id, from_step, 6),))
    return Requested(after(at), f"{stint.id}/{number}", stint, "d0", "because")


def begun(*more: Event, **changes) -> State:
    """A sweep of three whose first experiment was requested at START."""
    return State([Submitted(START, make_sweep(3, **changes)), requested(), *more])


NAME = requested().attempt


def progress(seq: int, step: int, kwh: float = 1.0) -> Progressed:
    return Progressed(after(seq), NAME, seq, step, {"e00": 4.0 - step}, (Segment(START, after(1), kwh, "x", step),))


def test_progress_is_taken_once():
    once = begun(progress(1, 2), progress(2, 4))
    twice = begun(progress(1, 2), progress(2, 4), progress(2, 4), progress(1, 2))
    for state in (once, twice):
        attempt = state.attempts[NAME]
        assert (attempt.seq, attempt.step, len(attempt.energy)) == (2, 4, 2)
        assert state.standings["e00"].loss == 0.0


def test_an_end_leaves_the_outcome():
    outcome = Outcome("e00", "done", 6, "", 1.0, 1.1, 4.0, adapter="a")
    state = begun(Running(after(0.5), NAME), Ended(after(1), NAME, (outcome,), {"torch": "2"}))
    standing = state.standings["e00"]
    assert (standing.status, standing.step, standing.outcome) == ("done", 6, outcome)
    assert (standing.first_running_at, standing.ended_at) == (after(0.5), after(1))
    assert state.facts == {"torch": "2"} and not state.active and not state.finished


def test_a_failed_outcome_ends_the_experiment_and_not_the_sweep():
    state = begun(Ended(after(1), NAME, (Outcome("e00", "failed", 3, "nan"),)))
    assert (state.standings["e00"].status, state.standings["e00"].reason) == ("failed", "nan")
    assert state.count("waiting") == 2 and not state.halted


def test_a_pause_leaves_the_rest_waiting_from_then_on():
    state = begun(Paused(after(2), NAME, (Outcome("e00", "paused", 4, checkpoint=saved(4)),)))
    standing = state.standings["e00"]
    assert (standing.status, standing.step, standing.ready_at) == ("waiting", 4, after(2))
    assert standing.checkpoint == saved(4)


def test_a_pause_before_the_first_step_loses_nothing():
    state = begun(Paused(after(2), NAME, (Outcome("e00", "paused", 0),)))
    assert (state.standings["e00"].status, state.standings["e00"].step) == ("waiting", 0)


def test_a_loss_keeps_the_last_checkpoint_and_the_age():
    state = begun(Lost(after(2), NAME, "killed", (saved(4),)))
    standing = state.standings["e00"]
    assert (standing.status, standing.step, standing.checkpoint) == ("waiting", 4, saved(4))
    assert (standing.ready_at, standing.fruitless, standing.reason) == (START, 0, "killed")


def test_an_older_checkpoint_does_not_set_back():
    again = requested(1, 3, from_step=4)
    state = begun(Lost(after(2), NAME, "", (saved(4),)), again, Lost(after(4), again.attempt, "", (saved(2),)))
    assert state.standings["e00"].step == 4 and state.standings["e00"].fruitless == 1


def losses(*whys: str, steps: tuple[int, ...] = (), told: bool = False, kill: bool = False) -> list[Event]:
    """e00 requested and lost again and again, hours apart."""
    events: list[Event] = []
    for i, why in enumerate(whys, 2):
        one = requested(i, i)
        events += [one]
        events += [Pausing(after(i + 0.5), one.attempt, "told", kill)] if told else []
        events += [Lost(after(i + 0.9), one.attempt, why, tuple(saved(step) for step in steps[i - 2 : i - 1]))]
    return events


def only_losses(events: list[Event]) -> State:
    return State([Submitted(START, make_sweep(3)), *events])


def test_three_losses_without_progress_fail_the_experiment_and_the_sweep_goes_on():
    state = only_losses(losses("a", "b"))
    assert (state.standings["e00"].status, state.standings["e00"].fruitless) == ("waiting", 2)
    state = only_losses(losses("a", "b", "c"))
    standing = state.standings["e00"]
    assert (standing.status, standing.ended_at) == ("failed", after(4.9))
    assert standing.reason == "3 attempts without progress; the last: c"
    assert state.count("waiting") == 2 and not state.finished


def test_progress_between_losses_renews_the_count():
    state = only_losses(losses("a", "b", "c", "d", "e", steps=(0, 0, 2, 2, 2)))
    assert (state.standings["e00"].status, state.standings["e00"].fruitless) == ("waiting", 2)


@pytest.mark.parametrize(("kill", "fruitless"), [(False, 0), (True, 2)])
def test_a_loss_after_being_told_to_stop_is_not_counted_but_a_killed_one_is(kill, fruitless):
    state = only_losses(losses("a", "b", told=True, kill=kill))
    assert state.standings["e00"].fruitless == fruitless


@pytest.mark.parametrize(
    ("seconds", "told", "checkpoints", "counted"),
    [(59, False, (), 1), (61, False, (), 0), (30, True, (), 0), (30, False, (saved(2),), 0)],
)
def test_an_early_loss_is_one_in_the_first_minute_that_nobody_asked_for(seconds, told, checkpoints, counted):
    at = START + timedelta(seconds=seconds)
    state = begun(*[Pausing(START, NAME, "told")] * told, Lost(at, NAME, "why", checkpoints))
    assert len(state.early_losses) == counted


def test_a_minute_of_a_replayed_clock_is_a_minute_of_the_wall():
    state = begun(Lost(after(1), NAME, "why"), replay=Replay(START, 3600.0))
    assert state.early_losses == [(("e00",), "why")]


def test_a_good_end_forgives_early_losses():
    again = requested(2, 1)
    end = Ended(after(2), again.attempt, (Outcome("e00", "done", 6),))
    assert begun(Lost(START, NAME, "why"), again, end).early_losses == []


def test_what_is_held_says_by_whom_until_it_runs():
    state = begun(Held(START, NAME, "kueue", "quota"))
    assert state.attempts[NAME].held == "kueue: quota"
    state.apply(Running(after(1), NAME))
    assert state.attempts[NAME].held == ""


def test_a_rung_stops_experiments():
    state = begun(Ranked(after(1), 3, ("e01", "e02"), "worse than half"))
    assert state.count("stopped") == 2 and state.standings["e01"].reason == "worse than half"


def test_stopped_or_halted_sweeps_are_finished_when_nothing_runs():
    end = Ended(after(1), NAME, (Outcome("e00", "done", 6),))
    for event in (Stopping(START, "enough"), Halted(START, "all alike")):
        assert not begun(event).finished
        assert begun(event, end).finished


def test_resuming_takes_the_new_spec_and_forgets_the_stop():
    changed = make_sweep(3, tiers=(URGENT.__class__("urgent", 99, timedelta(1), 1),))
    state = begun(Stopping(START, "enough"), Resumed(after(1), 2, changed, ("tiers",)))
    assert state.stopping == "" and state.epoch == 2
    assert state.sweep.tier("urgent").threshold == 99
    assert [event.changes for event in state.amendments] == [("tiers",)]


def test_observations_are_revised_and_gaps_stay_unknown():
    hour = timedelta(hours=1)
    state = begun(
        Observed(START, START, hour, (1.0, None, 3.0), Provenance("a", "measured")),
        Observed(after(5), after(1), hour, (2.0,), Provenance("a", "estimated")),
        Observed(after(6), after(5), hour, (6.0,), Provenance("b", "measured")),
    )
    assert [None if v != v else v for v in state.history.values.tolist()] == [1, 2, 3, None, None, 6]
    sources = [(p.title, p.quality) for p in state.grid.provenances]
    assert sources == [("a", "measured"), ("a", "estimated"), ("b", "measured")]


def test_grid_time_follows_the_anchors():
    wall = START.replace(year=2030)
    second = timedelta(seconds=1)
    state = begun(
        ClockAnchored(START, wall, 0.0, "start"),
        ClockAnchored(START, wall + 10 * second, 60.0, "work"),
        ClockAnchored(after(5), wall + 70 * second, 0.0, "jump"),
    )
    assert state.grid_time(wall + 5 * second) == START
    assert state.grid_time(wall + 20 * second) == START + 600 * second
    assert state.grid_time(wall + 1000 * second) == after(5)


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from([0.0, 1.0, 60.0]), st.integers(0, 500)), max_size=6))
def test_grid_time_is_monotone_where_the_anchors_are(turns):
    """Each turn: seconds of wall time since the last anchor, a new speed, and a jump ahead."""
    wall, at, speed = START, START, 0.0
    events = [ClockAnchored(at, wall, speed, "start")]
    for seconds, faster, jump in turns:
        wall += timedelta(seconds=seconds)
        at += timedelta(seconds=seconds * speed + jump)
        speed = faster
        events.append(ClockAnchored(at, wall, speed, "turn"))
    state = begun(*events)
    times = [state.grid_time(START + timedelta(seconds=s)) for s in range(0, 700, 7)]
    assert times == sorted(times)


def test_without_anchors_grid_time_is_wall_time():
    assert begun().grid_time(after(3)) == after(3)


@given(sweeps(), levels)
def test_the_same_events_make_the_same_state(sweep, grid_levels):
    state, journal = rehearsed(sweep, grid_levels, OnOff(200, 150))
    again = State(journal)
    assert again.standings == state.standings and again.attempts == state.attempts
    assert again.now == state.now and again.finished
    assert ledger(again) == ledger(state)
