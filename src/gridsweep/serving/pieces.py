"""Helpers for streaming: incremental decoding of tokens, and cutting text at stop strings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

HALF = "\ufffd"  # a decoder's output for the first bytes of an incomplete character


def decoded(tokens: Iterable[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Yield the text that each token adds; a character that spans tokens is yielded once complete."""
    ids: list[int] = []
    start = told = 0  # `ids[start:told]` is decoded again as context: the space before a word may depend on it
    for token in tokens:
        ids.append(token)
        before, text = decode(ids[start:told]), decode(ids[start:])
        if len(text) > len(before) and not text.endswith(HALF):
            yield text[len(before) :]
            start, told = told, len(ids)
    if rest := decode(ids[start:])[len(decode(ids[start:told])) :]:
        yield rest


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Generator[str, None, bool]:
    """Yield the text before the first of `stops`; return whether one occurred. Text that may start a stop is held."""
    held, kept = "", max(map(len, stops), default=1) - 1
    for piece in pieces:
        held += piece
        ends = [at for stop in stops if (at := held.find(stop)) >= 0]
        if ends:
            if text := held[: min(ends)]:
                yield text
            return True
        free = len(held) - kept
        if free > 0:
            yield held[:free]
            held = held[free:]
    if held:
        yield held
    return False
