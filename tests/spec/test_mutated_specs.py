"""Whatever stands in a spec, it is read or refused with exit code 2, without a traceback and within a second."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from mutations import judged, mutated, traps

TRAPS = dict(traps())


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_no_fault(tmp_path, name):
    assert judged(tmp_path / "sweep.yaml", TRAPS[name])[1] == ""


def test_of_500_broken_specs_none_is_a_fault(tmp_path):
    found: Counter[str] = Counter()
    for n, text in enumerate(islice(mutated(20261130), 500)):
        what, wrong = judged(tmp_path / "sweep.yaml", text)
        found[what] += 1
        assert not wrong, (n, wrong, text)
    assert found["refused"] > 200 and found["read"] > 20  # what was changed in a comment is no error
