"""Progress of a run on stderr: a live display on a terminal, one line per event elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gridsweep.render.glance import clock, picture, some
from gridsweep.state.events import (
    Added,
    Ended,
    Event,
    Halted,
    Held,
    Lost,
    Paused,
    Ranked,
    Requested,
    Resumed,
    Reverted,
    Stopping,
    Submitted,
)
from gridsweep.state.glance import glance
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.counting import counted, remaining
from gridsweep.sweep.stints import Stint

Tell = Callable[[State, Sequence[Event]], None]


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[Tell]:
    """Yield a listener for `drive` that shows progress; `quiet` shows nothing."""
    console = Console(stderr=True)
    if quiet:
        yield lambda state, events: None
    elif console.is_terminal:
        live = Live(console=console, refresh_per_second=4, transient=True)

        def show(state: State, events: Sequence[Event]) -> None:
            for line in lines(state, events):
                live.console.print(Text(line))
            live.update(picture(glance(state)))

        with suppress(OSError):
            live.start()
        try:
            yield while_shown(show)
        finally:
            with suppress(OSError):
                live.stop()
    else:

        def write(state: State, events: Sequence[Event]) -> None:
            for line in lines(state, events):
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield while_shown(write)


def while_shown(tell: Tell) -> Tell:
    """Return a listener that falls silent when its output cannot be written: a run goes on in a closed terminal."""
    shown = True

    def told(state: State, events: Sequence[Event]) -> None:
        nonlocal shown
        if shown:
            try:
                tell(state, events)
            except (OSError, SystemExit):  # rich exits where a pipe is broken
                shown = False

    return told


def lines(state: State, events: Sequence[Event]) -> list[str]:
    """Return the progress lines of events that `state` already includes; each ended experiment is numbered."""
    ended = _ended(state) - sum(_ends(state, event) for event in events)
    found = []
    for event in events:
        found.append(told(state, event, ended))
        ended += _ends(state, event)
    return list(filter(None, found))


def _ends(state: State, event: Event) -> int:
    """Return how many experiments an event ended."""
    match event:
        case Ended(outcomes=outcomes):
            return sum(outcome.status != "reached" for outcome in outcomes)
        case Ranked(stopped=stopped):
            return len(stopped)
        case Lost(at=at, attempt=attempt):
            members = [state.standings[member.experiment] for member in state.attempts[attempt].stint.members]
            return sum(standing.status in ("failed", "cancelled") and standing.ended_at == at for standing in members)
        case Paused(at=at, outcomes=outcomes):
            return _cancelled(state, (outcome.experiment for outcome in outcomes), at)
        case Asked(at=at, what="cancel", experiments=ids):
            return _cancelled(state, ids, at)
    return 0


def _cancelled(state: State, ids: Iterable[str], at: datetime) -> int:
    """Return how many of the experiments were cancelled at this moment."""
    return sum(state.standings[id].status == "cancelled" and state.standings[id].ended_at == at for id in ids)


def told(state: State, event: Event, ended: int = 0) -> str:
    """Return the progress line of an event, "" for most; `ended` counts the experiments that ended before it."""
    at = clock(event.at)
    match event:
        case Submitted(sweep=sweep):
            experiments, devices = counted(len(sweep.experiments), "experiment"), counted(len(sweep.devices), "device")
            return f"{at}  submitted {experiments} on {devices}, watching {state.sweep.carbon.zone}"
        case Resumed(changes=changes):
            left = state.left
            return f"{at}  resumed: {remaining(left)}" + (f"; changed: {'; '.join(changes)}" if changes else "")
        case Requested(stint=stint, device=device, why=why):
            return f"{at}  {device} starts {named(stint)}: {why}"
        case Ended(outcomes=outcomes):
            reached = [o for o in outcomes if o.status == "reached"]
            ends = [o for o in outcomes if o.status != "reached"]
            lines = [
                f"{at}  [{count}/{len(state.standings)}] {o.experiment} "
                + (
                    f"validation loss {o.validation_loss:.4f}"
                    if o.validation_loss is not None
                    else f"{o.status}: {o.reason}"
                )
                for count, o in enumerate(ends, ended + 1)
            ]
            if reached:
                lines.append(
                    f"{at}  {some([o.experiment for o in reached])} reached the rung at step {reached[0].step}"
                )
            return "\n".join(lines)
        case Ranked(step=step, kept=kept, stopped=stopped):
            return f"{at}  rung at step {step}: {len(kept)} of {len(kept) + len(stopped)} continue"
        case Added(experiments=joined, why=why):
            return f"{at}  {why}: {some([e.id for e in joined])} added" if joined else f"{at}  {why}"
        case Paused(outcomes=outcomes):
            return "\n".join(f"{at}  {o.experiment} paused at step {o.step}" for o in outcomes)
        case Lost(attempt=attempt, why=why):
            names = named(state.attempts[attempt].stint)
            return f"{at}  lost an attempt of {names}: {why}"
        case Reverted(experiment=experiment, why=why):
            return f"{at}  {experiment}: {why}"
        case Held(attempt=attempt, by=by, why=why):
            return f"{at}  {_held(named(state.attempts[attempt].stint), by, why)}"
        case Asked():
            return _asked(event)
        case Stopping(why=why):
            return f"{at}  {why}: stopping at checkpoints (Ctrl-C again exits at once)"
        case Halted(why=why):
            return f"{at}  halted: {why}"
    return ""


def _held(names: str, by: str, why: str) -> str:
    if why:
        return f"{by} holds {names}: {why}"
    return f"{by} released {names}" if by else f"the hold of {names} is over"


def _asked(event: Asked) -> str:
    at, whom = clock(event.at), some(event.experiments) if event.experiments else "the sweep"
    if event.what == "release" and event.until is not None:
        return f"{at}  the hold of {whom} is over"
    refused = f"; refused: {event.refused}" if event.refused else ""
    changed = [f"{at}  changed: {change}" for change in event.changes]
    what = f"asked what cannot be read of {whom}" if event.what == "unknown" else f"asked to {event.what} {whom}"
    return "\n".join([f"{at}  {event.by} {what}{refused}", *changed])


def named(stint: Stint) -> str:
    """Return the experiments trained in a stint."""
    return some([member.experiment for member in stint.members])


def _ended(state: State) -> int:
    return len(state.standings) - state.left


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield an updater of a progress bar, which is shown on a terminal only."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
