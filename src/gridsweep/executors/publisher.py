"""Publication of finished experiments: adapters go to `store/experiments/` by rename, checkpoints are removed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from gridsweep.errors import ExecutorError
from gridsweep.records.bounded import UnfitError, inside
from gridsweep.records.disk import patiently
from gridsweep.records.files import copied, remove, sync
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint


class Publisher:
    """Publishes finished adapters to experiments/ atomically, and removes checkpoints that are no longer needed.

    A stopped experiment keeps its last checkpoint, so that it can be resumed and evaluated again.
    """

    def __init__(self, store: Path):
        self.store = store
        self._published: set[str] = set()  # a cache: saves repeated checks

    def publish(self, state: State) -> None:
        """Publish the finished experiments of a state; idempotent. Raise `ExecutorError` if a copy fails."""
        for id, standing in state.standings.items():
            if id in self._published:
                continue
            if standing.status == "done" and standing.outcome and standing.outcome.adapter:
                self.put(id, standing.outcome.adapter)
                self._drop(standing)
            elif standing.status == "stopped":
                self._drop(standing, keep=standing.checkpoint)
            else:
                continue
            self._published.add(id)

    def _drop(self, standing: Standing, keep: Checkpoint | None = None) -> None:
        """Remove the checkpoints of one experiment only; `keep` is spared."""
        kept = self.store / keep.path if keep and keep.path else None
        for attempt in standing.attempts:
            home = self.store / "stints" / attempt / "checkpoints"
            for step in (*home.glob("*"), home):
                shutil.rmtree(step / f".{standing.experiment.id}", ignore_errors=True)  # a draft left by a kill
                if step / standing.experiment.id != kept:
                    remove(step / standing.experiment.id)
                with suppress(OSError):  # it holds other experiments' checkpoints, or does not exist
                    step.rmdir()

    def put(self, id: str, adapter: str) -> None:
        """Publish one adapter, named relative to the store; idempotent. Raise `ExecutorError` if the copy fails."""
        final = self.store / "experiments" / id / "adapter"
        try:
            if not final.exists():
                draft = final.with_name(".adapter")
                shutil.rmtree(draft, ignore_errors=True)
                copied(inside(self.store, adapter), draft)
                patiently(lambda: draft.rename(final))
                sync(final.parent)
        except UnfitError as error:
            raise ExecutorError(
                f"the adapter of {id} in {self.store / adapter} has changed since it was saved: {error}; "
                "restore it, and run again"
            ) from None
        except OSError as error:
            raise ExecutorError(
                f"cannot publish the adapter of {id} into {final}: {error.strerror or error}; it is safe in "
                f"{self.store / adapter}; put that right and run again"
            ) from None
