from hypothesis import given
from hypothesis import strategies as st

from gridsweep.sweep.stints import Member, Stint

members = st.builds(Member, st.sampled_from("abcd"), st.integers(0, 9), st.integers(10, 20))


def test_a_name_is_derived_from_the_work_alone():
    assert Stint((Member("a", 0, 10),)).id == Stint((Member("a", 0, 10),)).id
    assert Stint((Member("a", 0, 10),)).id != Stint((Member("a", 5, 10),)).id
    assert Stint((Member("a", 0, 10),)).id != Stint((Member("b", 0, 10),)).id


@given(st.lists(members, min_size=1, max_size=4, unique=True), st.randoms())
def test_the_order_of_members_does_not_matter(given_members, random):
    mixed = list(given_members)
    random.shuffle(mixed)
    assert Stint(tuple(mixed)).id == Stint(tuple(given_members)).id


@given(st.lists(members, min_size=1, max_size=4, unique=True))
def test_a_name_is_a_plain_folder_name(given_members):
    name = Stint(tuple(given_members)).id
    assert name.startswith("s-") and name[2:].isalnum() and len(name) == 14


def test_a_stint_takes_the_steps_of_its_longest_member():
    assert Stint((Member("a", 5, 10), Member("b", 0, 8))).steps == 8
