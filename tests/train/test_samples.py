from __future__ import annotations

import pytest

from gridsweep.train.samples import Sample, effective_batch, judging

pytestmark = pytest.mark.train


def samples(*lengths: int) -> list[Sample]:
    return [Sample(tuple(range(10, 10 + length)), 1) for length in lengths]


def test_the_learned_positions_leave_out_context_and_what_has_no_predecessor() -> None:
    def learned(*arguments):
        sample = Sample(tuple(range(20, 30)), *arguments)
        positions = [at for part in sample.learned for at in part]
        assert sample.counted == len(positions)
        return positions

    assert learned(0) == learned(1) == [*range(1, 10)]
    assert learned(4) == [*range(4, 10)]
    assert learned(2, ((4, 6), (7, 8))) == [2, 3, 6, 8, 9]
    assert learned(2, ((4, 6), (8, 12))) == [2, 3, 6, 7]  # the last answer was cut off
    assert learned(10) == []


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    some = samples(*range(5, 11))  # six, told apart by their lengths
    seen = [len(s.ids) for step in range(6) for s in effective_batch(some, step, 4, seed=1)]
    assert all(sorted(seen[i : i + 12]) == sorted([*range(5, 11)] * 2) for i in (0, 12))
    assert effective_batch(some, 2, 4, seed=1) == effective_batch(some, 2, 4, seed=1)
    assert any(effective_batch(some, n, 4, seed=1) != effective_batch(some, n, 4, seed=2) for n in range(3))
    assert any(effective_batch(some, n, 3, seed=1) != effective_batch(some, n + 2, 3, seed=1) for n in range(2))


def test_an_effective_batch_is_ordered_by_length() -> None:
    lengths = [len(s.ids) for s in effective_batch(samples(*range(2, 30)), 0, 8, seed=0)]
    assert lengths == sorted(lengths)


def test_a_quarter_judges_but_eight_at_least_and_the_seed_says_which() -> None:
    assert [len(judging(count, 42)) for count in (3, 8, 20, 32, 65)] == [3, 8, 8, 8, 17]
    assert judging(64, 42) == judging(64, 42) == sorted(set(judging(64, 42)))
    assert judging(64, 42) != judging(64, 43)
    assert judging(20, 42) == [2, 5, 6, 10, 11, 13, 15, 16]  # on any machine
