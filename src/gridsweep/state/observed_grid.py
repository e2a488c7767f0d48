"""The grid as recorded in a journal: every observed slot, and its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.readings import Provenance, Quality
from gridsweep.carbon.traces import HOUR, Column, Trace, or_nan, or_nones
from gridsweep.state.events import Observed, Settled


@dataclass(frozen=True, slots=True)
class Marked:
    """A grid's slots as values: gCO2eq/kWh (None: unknown), and for each the number of its provenance, -1 for none."""

    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    marks: tuple[int, ...]
    foreign: int


class Grid:
    """A fold over observations. Later ones revise earlier ones; an unknown slot revises nothing.

    The first observation sets the kind and basis of the figures. A slot of another kind or basis (for example marginal
    among averages) counts as unknown, and is counted in `foreign`.
    """

    def __init__(self) -> None:
        self.provenances: list[Provenance] = []
        self.foreign = 0
        self._column: Column = np.empty(0)
        self._marks: npt.NDArray[np.int16] = np.empty(0, dtype=np.int16)
        self._slots = 0
        self._start: datetime | None = None
        self._step = HOUR
        self._trace: Trace | None = None

    def take(self, event: Observed | Settled) -> None:
        if self._start is None:
            self._start, self._step = event.start, event.step
        first = (event.start - self._start) // self._step
        if first < 0:
            self._prepend(-first)
            first = 0
        last = first + len(event.values)
        if last > len(self._column):
            size = max(last, 2 * len(self._column))
            column, marks = np.full(size, np.nan), np.full(size, -1, dtype=np.int16)
            column[: self._slots], marks[: self._slots] = self._column[: self._slots], self._marks[: self._slots]
            self._column, self._marks = column, marks
        provenance = event.provenance.timeless
        if provenance not in self.provenances:
            self.provenances.append(provenance)
        values = or_nan(event.values)
        told = np.isfinite(values)
        if provenance.meaning != self.provenances[0].meaning:
            self.foreign += int(told.sum())
            values = np.full(len(values), np.nan)
        self._column[first:last][told] = values[told]
        self._marks[first:last][told] = self.provenances.index(provenance)
        self._slots = max(self._slots, last)
        self._trace = None

    def _prepend(self, slots: int) -> None:
        assert self._start is not None
        self._start -= slots * self._step
        self._column = np.concatenate([np.full(slots, np.nan), self._column])
        self._marks = np.concatenate([np.full(slots, -1, dtype=np.int16), self._marks])
        self._slots += slots

    def marked(self) -> Marked | None:
        """Return the slots as values; None before any observation. `of` makes the grid of them again."""
        if self._start is None:
            return None
        values, marks = self._column[: self._slots], self._marks[: self._slots]
        return Marked(self._start, self._step, or_nones(values), tuple(marks.tolist()), self.foreign)

    @classmethod
    def of(cls, marked: Marked, provenances: Sequence[Provenance]) -> Grid:
        """Return the grid of such values and its provenances."""
        made = cls()
        made.provenances, made.foreign = list(provenances), marked.foreign
        made._start, made._step, made._slots = marked.start, marked.step, len(marked.values)
        made._column, made._marks = or_nan(marked.values), np.array(marked.marks, dtype=np.int16)
        return made

    def runs(self, since: datetime) -> list[tuple[datetime, Column, Provenance]]:
        """Return what is known from `since` on: start, slots and provenance of every run of the same provenance."""
        if self._start is None:
            return []
        begin = max(0, (since - self._start) // self._step)
        marks, values = self._marks[begin : self._slots], self._column[begin : self._slots]
        edges = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(marks)]
        return [
            (self._start + (begin + a) * self._step, values[a:b], self.provenances[marks[a]])
            for a, b in pairwise(edges)
            if b > a and marks[a] >= 0  # slots without an observation are left out
        ]

    def facts(self, since: datetime, at: datetime) -> list[Observed]:
        """Return what is known from `since` on, one event for every run of slots with the same provenance."""
        return [
            Observed(at, start, self._step, or_nones(values), provenance)
            for start, values, provenance in self.runs(since)
        ]

    def trace(self, otherwise: datetime) -> Trace:
        """Return the slots, gCO2eq/kWh; before any observation, an empty trace that begins at `otherwise`."""
        if self._trace is None:
            self._trace = Trace(self._start or otherwise, self._step, self._column[: self._slots])
        return self._trace

    @property
    def qualities(self) -> tuple[Quality, ...]:
        """The qualities that occur, in order of their first slot."""
        marks = self._marks[: self._slots]
        kinds, firsts = np.unique(marks[marks >= 0], return_index=True)
        ordered = [self.provenances[kind].quality for _, kind in sorted(zip(firsts, kinds, strict=True))]
        return tuple(dict.fromkeys(ordered))

    def of_quality(self, quality: Quality) -> Trace:
        """Return a trace of 1 for slots of that quality and 0 for others; its mean over a window is the share."""
        assert self._start is not None, "the grid has no observations"
        chosen = [i for i, provenance in enumerate(self.provenances) if provenance.quality == quality]
        return Trace(self._start, self._step, np.isin(self._marks[: self._slots], chosen).astype(np.float64))
