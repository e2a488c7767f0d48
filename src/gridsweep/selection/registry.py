"""The proposers by name."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from gridsweep.errors import SpecError
from gridsweep.selection.optuna_proposer import OptunaProposer
from gridsweep.selection.proposers import BeyondTheEdge, Proposers
from gridsweep.sweep.sweep import Sweep


def proposers_for(sweep: Sweep) -> Proposers | None:
    """Return the proposer that the sweep chooses; None without one. Raise `SpecError` if Optuna is not installed."""
    if sweep.propose is None:
        return None
    if sweep.propose.by == "edge":
        return BeyondTheEdge
    if find_spec("optuna") is None:
        raise SpecError("propose: optuna is not installed; run `pip install 'gridsweep[optuna]'`, or set propose: edge")
    return partial(OptunaProposer, seed=sweep.recipe.seed)
