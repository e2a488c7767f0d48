from math import ceil, inf, isfinite, nan
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.selection.halving import TIE_ROOM, Score, clear_cut, cut, promotable
from gridsweep.spec.study import RecipeSection
from gridsweep.sweep.losses import Losses, which_score

TOKENS = (100.0, 50.0, 80.0, 120.0)
values = st.one_of(st.none(), st.just(nan), st.just(inf), st.floats(0.5, 3.0), st.sampled_from([1.0, 1.5]))
samples = st.one_of(st.none(), st.tuples(*[st.floats(0.5, 3.0)] * 4).map(lambda found: Losses(found, TOKENS)))
standings = st.dictionaries(st.sampled_from("abcdefghijkl"), st.builds(Score, values, values, samples), max_size=12)
keeps = st.integers(1, 6)


def scores(**losses):
    return {name: Score(loss) for name, loss in losses.items()}


def judged(*losses):
    return Score(sum(losses) / len(losses), samples=Losses(losses, (1.0,) * len(losses)))


def test_the_best_are_kept():
    found = cut(scores(a=1.3, b=1.1, c=1.2, d=1.4), 2)
    assert found.kept == ("b", "c")
    assert found.stopped == ("a", "d")
    assert found.tied == found.diverged == ()


def test_the_baseline_goes_on_beyond_the_number():
    assert cut(scores(a=1.3, b=1.1, c=1.2, d=1.4), 2, {"d"}).kept == ("b", "c", "d")
    assert cut(scores(a=1.3, b=1.1, c=1.2, d=1.4), 2, {"b", "ended"}).kept == ("b", "c")


def test_whoever_diverged_is_stopped_even_the_baseline():
    found = cut(scores(a=nan, b=1.1, c=None, d=inf), 3, {"a"})
    assert found.kept == ("b",)
    assert found.stopped == found.diverged == ("a", "c", "d")


WIDE = {
    "far": judged(9.0, 9.0, 9.0, 9.0),
    "further": judged(9.1, 9.1, 9.1, 9.1),
    "furthest": judged(9.2, 9.2, 9.2, 9.2),
}


def test_whoever_samples_cannot_tell_from_the_last_one_kept_is_kept_too():
    last, next_one = judged(1.0, 1.2, 1.4, 1.6), judged(1.1, 1.1, 1.5, 1.52)
    assert cut({"last": last, "next": next_one, **WIDE}, 1).tied == ("next",)


def test_a_small_but_sure_difference_is_no_tie():
    last, next_one = judged(1.0, 1.2, 1.4, 1.6), judged(1.01, 1.21, 1.41, 1.611)
    assert cut({"last": last, "next": next_one, **WIDE}, 1).tied == ()


def test_an_unsure_but_wide_difference_is_no_tie():
    last, next_one = judged(1.0, 1.2, 1.4, 1.6), judged(0.2, 2.4, 0.9, 2.9)
    assert cut({"last": last, "next": next_one, **WIDE}, 1).tied == ()


def test_without_samples_only_equal_scores_are_tied():
    assert cut(scores(a=1.0, b=1.0, c=1.000001, d=2.0, e=2.0), 1).kept == ("a", "b")


def test_on_a_plateau_a_quarter_more_is_kept():
    plateau = {f"e{i:02}": Score(1.0) for i in range(21)}
    assert [len(cut(plateau, keep).kept) for keep in (11, 6, 3)] == [14, 8, 4]
    assert len(cut(plateau, 11, room=0).kept) == 11


def test_the_disagreement_of_the_two_scores_is_counted():
    both = {"a": Score(1.0, 2.0), "b": Score(1.1, 1.0), "c": Score(1.2, 1.1), "d": Score(1.3, 3.0)}
    averaged, raw = cut(both, 2), cut(both, 2, by="raw")
    assert (averaged.kept, averaged.decided_by, averaged.disagreed) == (("a", "b"), "averaged", 1)
    assert (raw.kept, raw.decided_by, raw.disagreed) == (("b", "c"), "raw", 1)
    assert cut({**both, "e": Score(1.4, None)}, 2).disagreed is None
    assert cut({**both, "b": Score(1.1, nan)}, 2).disagreed == 1


@given(standings, keeps, st.sets(st.sampled_from("abcdefghijkl"), max_size=2), st.randoms())
def test_the_order_of_experiments_does_not_matter(found, keep, always, random):
    mixed = list(found.items())
    random.shuffle(mixed)
    assert cut(dict(mixed), keep, always) == cut(found, keep, always)


@given(standings, keeps, st.sets(st.sampled_from("abcdefghijkl"), max_size=2))
def test_everybody_is_kept_or_stopped_and_nobody_who_diverged_is_kept(found, keep, always):
    done = cut(found, keep, always)
    finite = {name for name, score in found.items() if score.value is not None and isfinite(score.value)}
    assert sorted(done.kept + done.stopped) == sorted(found)
    assert set(done.kept) <= finite
    assert set(done.diverged) == found.keys() - finite
    assert always & finite <= set(done.kept)


@given(standings, keeps)
def test_nobody_goes_on_while_a_better_one_is_stopped(found, keep):
    done = cut(found, keep)
    finite = len(found) - len(done.diverged)
    assert min(keep, finite) <= len(done.kept) <= keep + ceil(TIE_ROOM * keep)
    stopped = [found[name].value for name in done.stopped if name not in done.diverged]
    assert not stopped or not done.kept or max(found[name].value for name in done.kept) <= min(stopped)
    assert done.kept[len(done.kept) - len(done.tied) :] == done.tied


@given(standings, keeps)
def test_what_is_tied_costs_at_most_a_fiftieth_of_the_spread(found, keep):
    done = cut(found, keep)
    if done.tied:
        finite = [score.value for score in found.values() if score.value is not None and isfinite(score.value)]
        last = found[done.kept[keep - 1]].value
        reach = 0.02 * (median(finite) - min(finite)) + 1e-12
        assert all(found[name].value - last <= reach for name in done.tied)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.5, 3.0).map(Score)), keeps)
def test_keeping_one_more_stops_nobody_else(found, keep):
    assert set(cut(found, keep, room=0).kept) <= set(cut(found, keep + 1, room=0).kept)


@given(standings, keeps)
def test_a_second_look_at_those_kept_stops_none_of_the_best(found, keep):
    done = cut(found, keep, room=0)
    assert cut({name: found[name] for name in done.kept}, keep, room=0).kept == done.kept


def test_a_rung_keeps_somebody():
    with pytest.raises(ValueError, match="keep must be at least 1"):
        cut(scores(a=1.0), 0)


def test_averages_decide_while_the_learning_rate_decays():
    schedules = RecipeSection.model_json_schema()["properties"]["learning_rate_schedule"]["enum"]
    assert {name: which_score(name) for name in schedules} == {
        "cosine": "averaged",
        "linear": "averaged",
        "constant": "raw",
    }
    with pytest.raises(ValueError, match="no learning-rate schedule 'wsd'"):
        which_score("wsd")


def test_a_third_of_those_who_came_may_go_on():
    first = {"a": 1.0, "b": 1.1, "c": 1.2, "d": 1.3, "e": 1.4, "f": None}
    assert promotable([first]) == ((0, "a"), (0, "b"))
    assert promotable([first, {"a": 0.9}]) == ((0, "b"),)
    assert promotable([first], [{"b"}]) == ((0, "a"),)
    assert promotable([first, {"a": 0.9, "b": 0.8, "c": 1.0}]) == ((1, "b"),)
    assert promotable([{"a": 1.0, "b": 1.1}]) == ()


def test_whoever_is_named_goes_on_unless_it_diverged():
    assert promotable([{"a": 1.0, "b": 1.1}], always={"b"}) == ((0, "b"),)
    assert promotable([{"a": 1.0, "b": nan}], always={"b"}) == ()


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), values), max_size=3), st.floats(1.5, 5), st.randoms())
def test_promotions_do_not_depend_on_the_order_of_the_record(reached, eta, random):
    mixed = [dict(random.sample(list(rung.items()), len(rung))) for rung in reached]
    assert promotable(mixed, eta=eta) == promotable(reached, eta=eta)
    for rung, name in promotable(reached, eta=eta):
        assert isfinite(reached[rung][name])
        assert rung + 1 == len(reached) or name not in reached[rung + 1]


def test_an_eta_of_one_would_stop_nobody():
    with pytest.raises(ValueError, match="above 1"):
        promotable([{"a": 1.0}], eta=1.0)


CLEAR = {"drift": 0.6, "left": 0.5, "of": 21}


def spread(*means: float) -> dict[str, Score]:
    """Experiments whose samples differ by the same amount each: the samples are sure."""
    return {f"e{i:02}": judged(*(mean + sample for sample in (0.0, 0.3, 0.1, 0.2))) for i, mean in enumerate(means)}


def test_experiments_that_are_clearly_behind_stop_and_those_that_may_still_win_go_on():
    field = spread(1.0, 1.1, 1.4, 1.6, *[2.0] * 17)  # median less best is 1: until the end 0.3 may move, 1.645 times
    found = clear_cut(field, 18, **CLEAR)
    assert found.kept == ("e00", "e01", "e02") and len(found.stopped) == 18
    assert clear_cut(field, 2, **CLEAR).kept == ("e00", "e01")
    assert clear_cut(field, 18, {"e20"}, **CLEAR).kept == ("e00", "e01", "e02", "e20")


def test_the_nearer_the_end_the_fewer_may_still_win():
    field = spread(1.0, 1.1, 1.4, 1.6, *[2.0] * 17)
    kept = [len(clear_cut(field, 21, drift=0.6, left=left, of=21).kept) for left in (1.0, 0.75, 0.5, 0.25, 0.05)]
    assert kept == sorted(kept, reverse=True) and kept[0] == 4 and kept[-1] == 1


def test_what_samples_do_not_tell_apart_goes_on_to_the_end():
    one, other = judged(1.0, 1.2, 1.4, 1.6), judged(0.2, 2.4, 0.9, 2.1)
    assert clear_cut({"one": one, "other": other, **WIDE}, 5, drift=0.0, left=0.0, of=5).kept == ("one", "other")
    assert clear_cut(scores(a=1.0, b=1.001, c=9.0, d=9.1, e=9.2), 5, drift=0.0, left=0.0, of=5).kept == ("a", "b")


def test_those_stopped_before_count_as_worse_than_those_that_are_left():
    """Of three that are left of 21 the last is nearest to the median; of three in all it is the middle one."""
    field = spread(1.0, 1.25, 2.0)
    assert clear_cut(field, 3, drift=0.2, left=1.0, of=21).kept == ("e00", "e01")
    assert clear_cut(field, 3, drift=0.2, left=1.0, of=3).kept == ("e00",)


@given(standings, keeps, st.floats(0, 3), st.floats(0, 1))
def test_a_clear_cut_keeps_the_best_and_loses_nobody(found, most, drift, left):
    made = clear_cut(found, most, drift=drift, left=left, of=12)
    assert sorted((*made.kept, *made.stopped)) == sorted(found) and set(made.diverged) <= set(made.stopped)
    alive = {name: score.value for name, score in found.items() if score.value is not None and isfinite(score.value)}
    assert len(made.kept) <= most and bool(made.kept) == bool(alive)
    if alive:
        assert made.kept[0] == min(alive, key=lambda name: (alive[name], name))


def test_a_clear_cut_refuses_what_is_no_number():
    with pytest.raises(ValueError, match="at least 1"):
        clear_cut(scores(a=1.0), 0, **CLEAR)
    with pytest.raises(ValueError, match="negative"):
        clear_cut(scores(a=1.0), 1, drift=nan, left=0.5, of=1)
