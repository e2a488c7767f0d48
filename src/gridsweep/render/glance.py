"""A sweep at a glance as text: the live display of a run, and `status`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, get_args

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gridsweep.carbon.spans import hours
from gridsweep.errors import word
from gridsweep.render.screen import console
from gridsweep.state.glance import Glance, Late
from gridsweep.state.statuses import Status
from gridsweep.sweep.counting import counted

if TYPE_CHECKING:
    from gridsweep.runs.folder import RunFolder


def clock(moment: datetime | None) -> str:
    """Return a moment in UTC in short form."""
    return f"{moment:%b %d %H:%M}" if moment else "-"


def some(ids: Sequence[str]) -> str:
    """Return up to two ids by name, more as a count."""
    return ", ".join(ids) if len(ids) <= 2 else f"{len(ids)} experiments ({ids[0]}, ...)"


def picture(seen: Glance) -> Group:
    """Return the live display: grid time and intensity, a progress bar, running attempts, and reasons for waiting."""
    head = Text()
    head.append(f"{seen.sweep}  ", style="bold")
    head.append(f"grid time {clock(seen.now)} UTC  ")
    if seen.now and seen.observed:
        head.append(f"{seen.level:.0f} gCO2eq/kWh" if seen.level is not None else "intensity unknown", style="cyan")
    table = Table.grid(padding=(0, 2))
    for one in seen.running:
        table.add_row(one.device, Text(some(one.experiments)), Text(one.doing), f"step {one.step}/{one.last}")
    waits = [Text(f"{count} waiting: {why}", style="dim") for why, count in seen.waits.items()]
    if missed := late(seen.late):
        waits.append(Text(f"overdue: {missed}", style="red"))
    if seen.paused_by and not any(why.startswith("paused by") for why in seen.waits):
        waits.insert(0, Text(f"paused by {seen.paused_by}; go on with: gridsweep resume", style="yellow"))
    at_rung = seen.counts["reached"]
    waits += [Text(f"{at_rung} waiting at the rung for the others", style="dim")] if at_rung else []
    return Group(head, _bar(seen), table, *waits)


def _bar(seen: Glance) -> Table:
    """Return the share of the experiments that have ended, as a bar beside the numbers."""
    bar = Table.grid(padding=(0, 1), pad_edge=False)
    done = f"{seen.ended:>{len(str(seen.experiments))}}/{seen.experiments}"
    shown = ProgressBar(total=seen.experiments, completed=seen.ended, width=40)
    bar.add_row("experiments", shown, Text(done, style="progress.download"))
    return bar


def late(missed: Sequence[Late]) -> str:
    """Return all missed deadlines in one line; empty if there are none. Those that still wait are named apart."""
    return "; ".join(map(_late, missed))


def _late(missed: Late) -> str:
    deadline = {"start": "latest start", "end": "finish_by"}[missed.kind]
    whose = deadline if deadline == "finish_by" else f"{'their' if missed.count > 1 else 'its'} {deadline}"
    named = ", ".join(f"{id} by {hours(late_h)}" for id, late_h in missed.longest)
    more = missed.count - len(missed.longest)
    named += f" and {more} more" if more else ""
    if missed.over:
        return f"{counted(missed.count, 'experiment')} {missed.kind}ed after {whose}: {named}"
    have = "have" if missed.count > 1 else "has"
    return f"{counted(missed.count, 'experiment')} {have} not {missed.kind}ed by {whose}: {named}"


def ended(place: RunFolder) -> None:
    """Return once no run drives the sweep."""
    while place.driver() is not None:
        time.sleep(1.0)


def status(place: RunFolder, *, watch: bool) -> None:
    """Print the status of a sweep; `watch` refreshes it every second until the run ends."""
    from gridsweep.records.origins import origin_of
    from gridsweep.records.requests import left
    from gridsweep.render.asked import told
    from gridsweep.runs.glances import glance_at

    out = console()
    seen = glance_at(place)
    if watch and out.is_terminal:
        from rich.live import Live

        with Live(picture(seen), console=out) as live:
            while place.driver() is not None:
                time.sleep(1.0)
                seen = glance_at(place)
                live.update(picture(seen))
    else:
        while watch and place.driver() is not None:
            time.sleep(1.0)
            seen = glance_at(place)
        out.print(picture(seen))
    pid = place.driver()
    folder = shlex.quote(str(place.path))
    counts = ", ".join(f"{count} {status}" for status in get_args(Status) if (count := seen.counts[status]))
    origin = origin_of(place.state)
    driver = f"process {pid} drives it" if pid else f"read from {origin.source}" if origin else "no run drives it"
    out.print(f"{counts}\n{place.path}: {driver}", markup=False)
    if asked := told(seen.asked, seen.last_asked, len(left(place.state))):
        out.print(f"asked: {asked}", markup=False)
    if pid is None:
        then = f"resume with: gridsweep run {word(folder)}" if seen.left else f"next: gridsweep report {word(folder)}"
        then = f"bring it up to date with: {origin.again}" if origin and seen.left else then
        out.print(
            f"next: gridsweep best {word(folder)}" if seen.counts["done"] and not seen.left else then, markup=False
        )
