"""What others say, in messages: a worker, a provider, a dataset."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.errors import GridsweepError, printable

OBEYED = {"Cc", "Cs"}
"""Categories of characters that a terminal obeys, or that no terminal can show."""


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not {c for c in shown if unicodedata.category(c) in OBEYED} - {"\n", "\t"}
    assert not any("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in shown)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;ZXZpbA==\x07done", "done"),  # writes the clipboard
        ("\x1b]0;title\x1b\\done", "done"),
        ("\x1bc", "\ufffdc"),  # resets the terminal
        ("a\r\nb\x00", "a\ufffd\nb\ufffd"),
    ],
)
def test_sequences_are_removed_and_characters_replaced(said: str, shown: str) -> None:
    assert printable(said) == shown


def test_an_error_that_quotes_somebody_is_shown_plainly() -> None:
    error = GridsweepError("data.jsonl:3: \x1b[2Jthe row is bad; \x1b]52;c;eA==\x07mend it")
    assert str(error) == "data.jsonl:3: the row is bad; mend it"
    assert (error.where, error.what, error.remedy) == ("data.jsonl:3", "the row is bad", "mend it")
