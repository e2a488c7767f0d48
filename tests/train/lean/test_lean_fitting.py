"""The plan that memory allows: never more than there is, and the better the more there is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lean_builders import MEMBERS, RECIPE, SAMPLES, group, nothing, part, small_base

from gridsweep.errors import SpecError
from gridsweep.train.footprint import HEADROOM, Footprint
from gridsweep.train.lean.fitting import CPU_TOKENS, Work, fits, fitting, needed
from gridsweep.train.lean.group import Plan
from gridsweep.train.room import Room, room_for

pytestmark = pytest.mark.train
CONFIG = SimpleNamespace(
    hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, vocab_size=500
)
SHAPES = {f"model.layers.{n}.q_proj": (64, 64) for n in range(2)}
GPU = Footprint(10**7, 2, SHAPES, CONFIG)
CPU = replace(GPU, element=4, device="cpu")


@st.composite
def works(draw: st.DrawFn) -> Work:
    longest = draw(st.integers(8, 2000))
    ranks = draw(st.lists(st.sampled_from([4, 16, 32]), min_size=1, max_size=24))
    return Work(tuple(sorted(ranks)), draw(st.integers(longest, 8 * longest)), longest, draw(st.booleans()))


@given(works(), st.sampled_from([GPU, CPU]), st.floats(0.0, 1.0), st.floats(0.5, 2.0))
def test_a_plan_fits_and_none_that_costs_less_time_does(
    work: Work, footprint: Footprint, share: float, factor: float
) -> None:
    every = list(fits(footprint, work, factor))
    memory = share * 1.2 * max(fit.bytes for fit in every) / (1 - HEADROOM)
    room = memory * (1 - HEADROOM)
    if all(fit.bytes > room for fit in every):
        with pytest.raises(SpecError, match="and the device has"):
            fitting(footprint, work, memory, factor=factor)
        return
    found = fitting(footprint, work, memory, factor=factor)
    plan = found.plan
    assert found.bytes == needed(footprint, work, plan, away=found.away, factor=factor) <= room
    assert 1 <= plan.members <= len(work.ranks)
    assert plan.tokens is None or plan.tokens >= min(work.longest, CPU_TOKENS)
    assert all(fit.bytes > room for fit in every[: every.index(found)])


@given(works(), st.sampled_from([GPU, CPU]), st.floats(1.0, 2.0), st.floats(1.0, 3.0))
def test_more_memory_never_gives_a_slower_plan(work: Work, footprint: Footprint, more: float, start: float) -> None:
    every = list(fits(footprint, work))
    memory = start * min(fit.bytes for fit in every) / (1 - HEADROOM) + 1
    small, large = fitting(footprint, work, memory), fitting(footprint, work, more * memory)
    assert every.index(large) <= every.index(small)


def test_masks_go_first_then_members_then_tokens_and_adapters_last() -> None:
    found = [(f.away, f.plan.tokens, f.plan.members, f.plan.remember) for f in fits(GPU, Work((4, 4), 100, 30, True))]
    assert found == [
        (away, tokens, members, kept)
        for away in (False, True)
        for tokens in (None, 50, 30)
        for members in (2, 1)
        for kept in (True, False)
    ]


@given(works(), st.integers(0, 23), st.floats(1.0, 100.0))
def test_on_a_cpu_neither_memory_nor_company_decides_about_the_tokens_of_a_pass(
    work: Work, fewer: int, more: float
) -> None:
    """They would decide about the rounding."""
    some = replace(work, ranks=work.ranks[: fewer + 1])
    for fit in (*fits(CPU, work), *fits(CPU, some)):
        assert fit.plan.tokens == CPU_TOKENS and not fit.away


def test_too_little_memory_is_told_with_numbers() -> None:
    with pytest.raises(SpecError, match=r"of 30 tokens need about 0\.23 GB, of .* device has 0\.01 GB: the base"):
        fitting(GPU, Work((4, 4), 100, 30, True), 1e7)


def test_it_is_the_groups_own_passes_that_are_reckoned_and_counted() -> None:
    """Samples of one length, so that nothing is padded: what the step keeps is what was foreseen."""
    equal = [replace(sample, ids=(5,) * 12, prompt=2) for sample in SAMPLES]
    base = small_base()
    room = room_for(base, MEMBERS, RECIPE, equal, 1e9)
    assert room is not None and room.fit.plan == Plan(4, CPU_TOKENS)
    some = group(base=base, plan=room.fit.plan)
    some.train = equal
    with room.counting(some) as taken:
        some.step(0, nothing)
    assert taken() == pytest.approx(room.predicted(some.plan), rel=0.02)
    assert room.corrected(some.plan, taken()) == room.fit.plan
    assert room.factor == pytest.approx(1.0, abs=0.1)


def room_with(memory: float) -> Room:
    return Room(CPU, Work((4,) * 4, 600, 100, True), memory)


def test_a_step_that_took_more_than_foreseen_makes_the_next_ones_smaller() -> None:
    roomy = room_with(1e9)
    first = roomy.fit.plan
    memory = roomy.predicted(first) * 1.05 / (1 - HEADROOM)
    room = room_with(memory)
    assert room.fit.plan == first == Plan(4, CPU_TOKENS)
    after = room.corrected(first, room.predicted(first) * 1.5)
    assert after != first and room.has(after) and room.factor > 1.5
    again = room_with(memory)
    assert again.corrected(first, room_with(memory).predicted(first) * 1.5) == after  # the same every time
    timed = Plan(2, CPU_TOKENS, False)
    assert room_with(1e9).corrected(timed, 2e7) == timed  # it fits, and was found to be the fastest
    assert room_with(memory).corrected(first, 1e12) == first  # it did run


def test_of_a_model_of_another_shape_nothing_is_known() -> None:
    base = small_base()
    base.config = SimpleNamespace(hidden_size=32)
    assert room_for(base, [part("x", 4, 8, 1e-3, 0.0)], RECIPE, SAMPLES, 1e9) is None
