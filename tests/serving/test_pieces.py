"""Tokens to text, and text to a stop."""

from hypothesis import given
from hypothesis import strategies as st

from gridsweep.serving.pieces import decoded, until_stop


def all_of(generator):
    """(the pieces, what it returned)."""
    pieces = []
    while True:
        try:
            pieces.append(next(generator))
        except StopIteration as end:
            return pieces, end.value


def bytewise(ids):
    return bytes(ids).decode("utf-8", "replace")


@given(st.text())
def test_pieces_make_up_the_text_and_no_half_character_is_shown(text):
    pieces = list(decoded(text.encode(), bytewise))
    assert "".join(pieces) == text
    assert all(piece for piece in pieces)


@given(st.binary(max_size=40))
def test_what_is_no_text_is_decoded_as_a_whole(data):
    assert "".join(decoded(data, bytewise)) == bytewise(data)


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_text_goes_on_until_the_first_stop(pieces, stops):
    text = "".join(pieces)
    ends = [text.find(stop) for stop in stops if stop in text]
    told, stopped = all_of(until_stop(pieces, stops))
    assert stopped == bool(ends)
    if not ends:
        assert "".join(told) == text
    else:
        # The stop that is complete first ends it; a longer one may begin before.
        assert text.startswith("".join(told)) and not any(stop in "".join(told) for stop in stops)


def test_nothing_is_held_back_without_a_reason():
    assert all_of(until_stop(["a", "b"], [])) == (["a", "b"], False)
    assert all_of(until_stop(["ab", "c", "d"], ["xy"])) == (["a", "b", "c", "d"], False)
    assert all_of(until_stop(["ab", "cd", "e"], ["cd"])) == (["a", "b"], True)
