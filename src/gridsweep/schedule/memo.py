"""Values derived from a state, cached until what they depend on changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from gridsweep.state.standings import Change
from gridsweep.state.state import State

P = ParamSpec("P")
T = TypeVar("T")


def kept_until(*changes: Change) -> Callable[[Callable[Concatenate[State, P], T]], Callable[Concatenate[State, P], T]]:
    """Keep the last result for each state until one of these changes is counted, or the arguments differ.

    The function must depend on nothing else. A result is shared by all callers and is dropped with its state.
    """

    def decorate(derive: Callable[Concatenate[State, P], T]) -> Callable[Concatenate[State, P], T]:
        kept: WeakKeyDictionary[State, tuple[tuple[object, ...], T]] = WeakKeyDictionary()

        @wraps(derive)
        def derived(state: State, /, *args: P.args, **kwargs: P.kwargs) -> T:
            assert not kwargs, "arguments are part of the cache key; pass them by position"
            key = (*(state.changes[change] for change in changes), *args)
            found = kept.get(state)
            if found is None or found[0] != key:
                found = kept[state] = key, derive(state, *args, **kwargs)
            return found[1]

        return derived

    return decorate
