"""The baseline: the same work run at once, on the same devices with the same energy."""

from __future__ import annotations

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.carbon.readings import Provenance
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.rehearsal import again
from gridsweep.simulation.virtual import Observations
from gridsweep.state.state import State


def baseline(state: State) -> tuple[State, Ledger] | None:
    """The same work run at once: same devices, same energy, the intensities that were observed.

    Of every experiment that has ended: its pieces up to each rung are joined into one run, keeping energy by elapsed
    time, on the device it ended on where devices differ or nothing is packed; pauses, reloads and lost attempts count
    only in the actual world. What a rung stopped is stopped there, what joined later joins after the same step. None
    before anything has ended.
    """
    seen = Observations(state.history, Provenance("observed"))
    made = again(state, seen, Immediate())
    return None if made is None else (made, ledger(made))
