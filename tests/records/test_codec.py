from dataclasses import is_dataclass
from datetime import datetime, timedelta
from math import nan
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from builders import START, make_sweep
from gridsweep.records import codec
from gridsweep.state.events import Event, Progressed, Submitted
from gridsweep.sweep.experiments import LoraParams, Setting
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import EARLIER, Proposals, Repeats, Rungs

ANY_EVENT = Annotated[Event, Field(discriminator="kind")]
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    datetime: st.timedeltas(timedelta(0), timedelta(days=9999)).map(lambda span: START + span),
    timedelta: st.timedeltas(timedelta(0), timedelta(days=4000)),
    float: st.floats(allow_nan=False, allow_infinity=False),
    int: st.integers(0, 2**53),
    str: st.text(max_size=8),
    bool: st.booleans(),
    NoneType: st.none(),
    Any: st.none() | st.text(max_size=8) | st.integers(0, 9) | st.dictionaries(st.text(max_size=3), st.booleans()),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, all its fields filled."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in LEAVES:
        return LEAVES[kind]
    if origin in (Union, UnionType):
        return st.one_of([values(arg) for arg in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is ...:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if kind is Losses:  # as many counts as values
        pairs = st.lists(st.tuples(values(float), st.floats(1, 1e6)), min_size=1, max_size=3)
        return pairs.map(lambda found: Losses(*map(tuple, zip(*found, strict=True))))
    if kind is Rungs:
        return st.sampled_from([EARLIER, Rungs((), ()), Rungs((0.5,), (2,), ("e00",), together=False)])
    if kind is Repeats or kind is Proposals:
        return st.sampled_from([Repeats(), Repeats(2, 1)] if kind is Repeats else [Proposals(), Proposals("optuna", 1)])
    assert is_dataclass(kind)
    fields = {name: values(hint) for name, hint in get_type_hints(kind).items()}
    if kind is LoraParams:  # further axes are sorted, and each is there once
        fields["more"] = st.dictionaries(values(str).map(lambda key: f"x{key}"), values(Setting), max_size=3).map(
            lambda more: tuple(sorted(more.items()))
        )
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_event_comes_back_as_it_was_written(kind):
    @given(values(kind))
    def check(event):
        assert codec.loads(ANY_EVENT, codec.dumps(event)) == event

    check()


def test_times_come_back_aware_and_unknown_numbers_as_none():
    event = Progressed(START, "s/1", 1, 2, {"e00": nan})
    again = codec.loads(ANY_EVENT, codec.dumps(event))
    assert again.at.tzinfo is not None and again.at == START
    assert again.losses == {"e00": None}


def test_a_sweep_comes_back_whole():
    for finish_by in (None, timedelta(hours=30), START):
        event = Submitted(START, make_sweep(4, finish_by=finish_by))
        assert codec.loads(ANY_EVENT, codec.dumps(event)) == event


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "Nonsense"}', '{"kind": "Running", "at": "yesterday"}'])
def test_what_is_no_event_is_refused(text):
    with pytest.raises(ValueError):
        codec.loads(ANY_EVENT, text)
