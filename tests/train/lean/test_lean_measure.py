"""What a pass costs: measured on the device, and modelled as autograd really keeps it."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from lean_builders import MEMBERS, SAMPLES, group, nothing, part, small_base
from saved_tensors import saved_bytes

from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.linear import Pass
from gridsweep.train.lean.measure import Choice, Measured, measure
from gridsweep.train.lean.memory import bytes_per_token
from gridsweep.train.lean.packing import pack
from gridsweep.train.samples import Sample

pytestmark = pytest.mark.train


def test_every_portion_is_tried_with_masks_kept_and_made_again() -> None:
    some, untouched = group(), group()
    measured = measure(some, sizes=(1, 2, 4, 8), rounds=1)
    assert {(choice.members, choice.remember) for choice in measured.choices} == {
        (n, kept) for n in (1, 2, 4) for kept in (True, False)
    }
    assert all(choice.tokens_per_s > 0 for choice in measured.choices)
    assert measured.plan(some.plan).members == measured.best.members
    assert [some.step(n, nothing) for n in range(2)] == [untouched.step(n, nothing) for n in range(2)]


def test_the_fastest_by_the_clock_is_best() -> None:
    """A clock by which every pass takes a second: the most members get the most done."""
    ticks = count()
    measured = measure(group(), sizes=(1, 2, 4), rounds=1, clock=lambda: float(next(ticks)))
    tokens = sum(len(sample.ids) for sample in group().batch(0))
    assert measured.best == Choice(4, True, 4.0 * tokens)
    assert Measured((Choice(1, True, 5.0), Choice(2, False, 7.0))).plan(Plan(9, tokens=3)) == Plan(2, 3, False)


def test_what_is_hardly_faster_changes_no_plan() -> None:
    choices = (Choice(4, True, 100.0), Choice(2, True, 101.0))
    assert Measured(choices).plan(Plan(4)) == Plan(4) and Measured(choices).plan(Plan(3)) == Plan(2)


def test_without_time_only_the_plans_own_choice_is_tried() -> None:
    for limited in ({"seconds": 0.0}, {"ahead": 0}):
        tried = measure(group(plan=Plan(2, remember=False)), sizes=(1, 2, 4), **limited).choices
        assert [(c.members, c.remember) for c in tried] == [(2, False)]


def fitting_in(room: int, kept_room: int) -> Group:
    """A group in whose memory so many members pass at a time, and so many while masks are kept."""

    def small_memory(members: int, tokens: int) -> None:
        if members > (kept_room if some.plan.remember else room):
            raise torch.OutOfMemoryError("no room")

    some = group(before_pass=small_memory)
    return some


@pytest.mark.parametrize(
    ("room", "kept_room", "found"),
    [
        (2, 2, {(1, False), (1, True), (2, False), (2, True)}),
        (2, 1, {(1, False), (1, True), (2, False)}),
        (1, 0, {(1, False)}),  # masks have to be made again even for one
        (0, 0, set()),
    ],
)
def test_what_does_not_fit_the_memory_is_no_choice(room: int, kept_room: int, found: set) -> None:
    measured = measure(fitting_in(room, kept_room), sizes=(1, 2, 4), rounds=1)
    assert {(choice.members, choice.remember) for choice in measured.choices} == found
    plan = measured.plan(Plan(4, tokens=9))
    assert plan == Plan(4, 9) if not found else (plan.members, plan.remember) in found
    assert (measured.best is None) == (not found)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("layers", ["all", "upper-half"])
@pytest.mark.parametrize(("dropout", "remember"), [(0.0, True), (0.1, True), (0.1, False)])
def test_the_model_of_memory_is_what_autograd_keeps(kind: str, layers: str, dropout: float, remember: bool) -> None:
    members = [part(name, 4, 8, 1e-3, dropout) for name in "xy"]
    some = group(members, base=small_base(kind), layers=layers)
    packed = pack([Sample(tuple(range(2 + n, 26 + n)), 5) for n in range(6)], some.device)
    blocks = some.roster.to_train(some.members).blocks
    now = Pass(2, blocks, some._bits(some.members, packed, 0), remember)
    weights = [*some.lean.base.parameters(), *(stack.weights for stack in some.roster.stacks.values())]
    kept = saved_bytes(lambda: some.lean.losses(now, packed), weights)
    model = bytes_per_token(
        some.lean.shapes, some.lean.base.config, 4, 4, members=2, counted=len(packed.targets) / packed.tokens,
        remembered=remember and dropout > 0,
    )  # fmt: skip
    assert kept == pytest.approx(model * packed.tokens * 2)


def test_nothing_of_the_frozen_product_is_kept() -> None:
    """Without adapters in a portion there is nothing to keep at all."""
    some = group(MEMBERS[:1])
    packed = pack(SAMPLES[:4], some.device)
    blocks = some.roster.to_evaluate(["a"], {r: stack.weights for r, stack in some.roster.stacks.items()})
    assert saved_bytes(lambda: some.lean.losses(Pass(1, blocks), packed), []) == 0
