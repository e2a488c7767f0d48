"""Numbers of things as text."""

from __future__ import annotations


def counted(n: int, thing: str) -> str:
    """Return a number of things as text: `1 experiment`, `3 experiments`."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def remaining(n: int) -> str:
    """Return how many experiments remain as text: `1 experiment remains`, `3 experiments remain`."""
    return f"{counted(n, 'experiment')} {'remains' if n == 1 else 'remain'}"
