"""From the name of a proposer to one that is ready."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from gridsweep.errors import SpecError
from gridsweep.selection.optuna_proposer import OptunaProposer
from gridsweep.selection.proposers import BeyondTheEdge, Proposers
from gridsweep.sweep.sweep import Sweep


def proposers_for(sweep: Sweep) -> Proposers | None:
    """Who is asked for points, as the sweep says. Raises `SpecError` where Optuna is wanted and not installed."""
    if sweep.propose is None:
        return None
    if sweep.propose.by == "edge":
        return BeyondTheEdge
    if find_spec("optuna") is None:
        raise SpecError("propose: optuna needs the extra `optuna`: pip install 'gridsweep[optuna]', or propose: edge")
    return partial(OptunaProposer, seed=sweep.recipe.seed)
