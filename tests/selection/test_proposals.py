from math import nan

from hypothesis import given
from hypothesis import strategies as st

from gridsweep.selection.proposers import BeyondTheEdge, Proposer
from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import LoraParams

WINNER = LoraParams(32, 128.0, 1e-4, 0.05)


def told(*pairs, tried=()):
    proposer: Proposer = BeyondTheEdge(tried)
    for params, value in pairs:
        proposer.tell(params, value)
    return proposer


def asked(proposer, times):
    return [proposer.ask() for _ in range(times)]


def test_free_places_go_beyond_the_published_winners_corner_one_way_each():
    proposer = told((WINNER, 1.0), tried=published())
    assert asked(proposer, 4) == [
        LoraParams(32, 128.0, 2e-4, 0.05),
        LoraParams(64, 128.0, 1e-4, 0.05),  # an alpha of 256 nearly coincides with the lr just proposed
        LoraParams(32, 128.0, 1e-4, 0.0),
        None,
    ]


def test_a_better_point_beyond_leads_further():
    proposer = told((WINNER, 1.0), tried=published())
    beyond = proposer.ask()
    proposer.tell(beyond, 0.9)
    assert proposer.ask() == LoraParams(32, 128.0, 4e-4, 0.05)


def test_a_point_beyond_that_diverged_leads_nowhere():
    proposer = told((WINNER, 1.0), tried=published())
    proposer.tell(proposer.ask(), nan)
    assert proposer.ask() == LoraParams(64, 128.0, 1e-4, 0.05)


def test_where_nothing_is_known_or_the_winner_lies_inside_nothing_is_proposed():
    assert BeyondTheEdge(published()).ask() is None
    assert told((WINNER, nan)).ask() is None
    inside = LoraParams(16, 64.0, 5e-5, 0.1)
    tried = [LoraParams(r, a, lr, d) for r, a, lr, d in [(8, 32.0, 1e-5, 0.05), (32, 128.0, 1e-4, 0.15)]]
    assert told((inside, 1.0), tried=tried).ask() is None


def test_repeats_count_by_their_mean_and_one_that_diverged_is_no_winner():
    other = LoraParams(16, 32.0, 1e-4, 0.1)
    # Twice the lr is the effective step of an alpha of 64, and half the alpha that of half the lr: both were tried.
    beyond_other = LoraParams(8, 32.0, 1e-4, 0.1)
    assert told((WINNER, 1.0), (WINNER, 1.4), (other, 1.1), tried=published()).ask() == beyond_other
    assert told((WINNER, 1.0), (WINNER, nan), (other, 1.1), tried=published()).ask() == beyond_other


@given(st.lists(st.tuples(st.sampled_from(published()), st.floats(0.5, 3.0)), max_size=12), st.randoms())
def test_the_same_points_in_any_order_get_the_same_proposals(pairs, random):
    mixed = random.sample(pairs, len(pairs))
    proposals = asked(told(*pairs), 5)
    assert asked(told(*mixed), 5) == proposals
    found = [point for point in proposals if point is not None]
    assert len(set(found)) == len(found)
    assert not set(found) & {params for params, _ in pairs}
