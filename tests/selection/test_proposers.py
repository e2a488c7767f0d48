"""Optuna, asked and told; or the rule that is built in."""

from __future__ import annotations

from math import inf

import pytest

from builders import make_sweep
from gridsweep.errors import SpecError
from gridsweep.selection import registry
from gridsweep.selection.optuna_proposer import OptunaProposer
from gridsweep.selection.proposers import BeyondTheEdge
from gridsweep.selection.registry import proposers_for
from gridsweep.sweep.designs import published
from gridsweep.sweep.rungs import Proposals


def asked(seed: int = 42, n: int = 4):
    proposer = OptunaProposer(published(), seed)
    for place, params in enumerate(published()):
        proposer.tell(params, inf if place == 3 else 0.1 * place)
    return [proposer.ask() for _ in range(n)]


def test_the_same_points_told_get_the_same_proposals():
    assert asked() == asked()
    assert asked(seed=1) != asked(seed=2)


def test_proposals_are_new_and_lie_around_what_was_tried():
    points = asked(n=6)
    assert len(set(points)) == 6 and not set(points) & set(published())
    for params in points:
        assert params.r in {16, 32} and params.alpha in {p.alpha for p in published()}
        assert 1e-5 / 4 <= params.lr <= 1e-4 * 4 and 0 <= params.dropout <= 0.2
        assert params.lr == float(f"{params.lr:.1e}")


def test_who_is_asked_is_what_the_sweep_says(monkeypatch):
    assert proposers_for(make_sweep(2)) is None
    assert proposers_for(make_sweep(2, propose=Proposals("edge"))) is BeyondTheEdge
    made = proposers_for(make_sweep(2, propose=Proposals("optuna")))(published())
    assert isinstance(made, OptunaProposer)
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'gridsweep\[optuna\]'"):
        proposers_for(make_sweep(2, propose=Proposals("optuna")))
