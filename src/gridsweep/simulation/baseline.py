"""The baseline: the same work run at once, on the same devices with the same energy."""

from __future__ import annotations

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.carbon.readings import Provenance
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.rehearsal import again
from gridsweep.simulation.virtual import Observations
from gridsweep.state.state import State


def baseline(state: State) -> tuple[State, Ledger] | None:
    """Return the same work run at once: same devices, same energy, the observed intensities.

    For every ended experiment, the attempts up to each rung are joined into one run that keeps energy by elapsed time,
    on the device on which it ended if devices differ or nothing is packed. Pauses, reloads and lost attempts count only
    in the real sweep. Experiments stopped at a rung are stopped there, and later additions are added after the same
    step. None before any experiment has ended.
    """
    seen = Observations(state.history, Provenance("observed"))
    made = again(state, seen, Immediate())
    return None if made is None else (made, ledger(made))
