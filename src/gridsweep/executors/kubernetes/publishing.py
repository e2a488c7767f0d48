"""Publication of finished adapters from a cluster's volume."""

from __future__ import annotations

from gridsweep.executors.kubernetes.volume import Files
from gridsweep.executors.publisher import Publisher
from gridsweep.state.state import State


class Publishing:
    """Fetches and publishes finished adapters, each once, and removes their checkpoints from the volume."""

    def __init__(self, files: Files):
        self._files, self._publisher = files, Publisher(files.store)
        self._published: set[str] = set()

    def publish(self, state: State) -> None:
        """Publish what has finished since the last call. Raise `Unreachable` while the volume cannot be reached."""
        done = {
            id: standing
            for id, standing in state.standings.items()
            if id not in self._published and standing.status == "done" and standing.outcome and standing.outcome.adapter
        }
        for id, standing in done.items():
            if not (self._files.store / "experiments" / id / "adapter").exists():
                assert standing.outcome and standing.outcome.adapter
                self._files.bring(standing.outcome.adapter)
        self._publisher.publish(state)
        for id, standing in done.items():
            for attempt in standing.attempts:
                members = state.attempts[attempt].stint.members
                # Checkpoints are removed per attempt, so only when none of its members can resume from them any more.
                if all(state.standings[member.experiment].status in ("done", "failed") for member in members):
                    self._files.forget(attempt)
            self._published.add(id)
