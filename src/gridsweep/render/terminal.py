"""Results as text on the terminal, printed to stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.markup import escape
from rich.text import Text

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.carbon.traces import HOUR
from gridsweep.doctor import Finding
from gridsweep.errors import DONE, EXIT_CODES, word
from gridsweep.policy.registry import uses_limits
from gridsweep.records.looks import Look
from gridsweep.render import asked, promises, wording
from gridsweep.render.condensed import listed, unlisted
from gridsweep.render.figures import energy, grams, hours, percent
from gridsweep.render.glance import clock
from gridsweep.render.screen import console, table
from gridsweep.serving.adapters import Adapter
from gridsweep.state.overdue import overdue
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.counting import counted, remaining
from gridsweep.sweep.experiments import text
from gridsweep.sweep.rung_prices import rungs_told
from gridsweep.sweep.sweep import Sweep


def check(sweep: Sweep, warnings: Sequence[str] = (), look: Look | None = None) -> None:
    """Print a sweep's experiments, each with its tier and the reason for it, what the look saw, and the warnings."""
    out = console()
    keys = tuple(dict.fromkeys(key for e in sweep.experiments for key in e.params.keys))
    rows = table("experiment", *keys, "tier", "because", right=keys)
    for e in sweep.experiments:
        own = e.params.values
        rows.add_row(e.id, *(text(own[key]) if key in own else "" for key in keys), e.tier, escape(e.reason))
    out.print(rows)
    limited = uses_limits(sweep)
    limit = ("starts at or below",) if limited else ()
    tiers = table("tier", *limit, "longest wait", "experiments", right=("experiments",))
    for tier in sweep.tiers:
        count = sum(e.tier == tier.name for e in sweep.experiments)
        tiers.add_row(tier.name, *([tier.limit] if limited else []), hours(tier.max_delay / HOUR), str(count))
    out.print()
    out.print(tiers)
    hours_alone = len(sweep.experiments) * (sweep.estimates.duration / HOUR)
    what = f"{counted(len(sweep.experiments), 'experiment')} of {sweep.total_steps} steps"
    on = f"{counted(len(sweep.devices), 'device')}, {hours(hours_alone)} of estimated device time"
    out.print(f"\n{escape(sweep.name)} is valid: {what} on {on}.")
    if sweep.rungs is not None:
        told = rungs_told(sweep)
        out.print(f"{escape(told[0].upper() + told[1:])}.")
    if sweep.propose is not None:
        out.print(
            f"Up to {sweep.propose.most} more experiments are proposed by {sweep.propose.by} as rungs free places."
        )
    if sweep.repeats is not None:
        out.print(f"Then the best {sweep.repeats.finalists} are trained with {sweep.repeats.seeds} seeds each.")
    if look is not None:
        seen(look)
    for warning in warnings:
        out.print(f"[yellow]warning[/yellow] {escape(warning)}")


def seen(look: Look) -> None:
    """Print what a look saw of data and model, the first sample with its learned parts marked, and what it missed."""
    out = console()
    out.print()
    for name, fact in look.facts.items():
        out.print(f"{name}: {escape(fact)}")
    if look.first:
        out.print("first sample, [reverse]learned[/reverse] in reverse (in » « without colours):")
        marks = ("", "") if out.is_terminal else ("»", "«")
        text = Text("  ")
        for piece in look.first:
            words = f"{marks[0]}{piece.text}{marks[1]}" if piece.learned else piece.text
            text.append(words.replace("\n", "\n  "), "reverse" if piece.learned else "")
        out.print(text, soft_wrap=True)
    for why in dict.fromkeys(look.unseen.values()):
        names = [name for name, reason in look.unseen.items() if reason == why]
        out.print(f"[yellow]not looked at[/yellow]: {', '.join(names)}: {escape(why)}")


def report(made: Report, *, short: bool = False) -> None:
    """Print the ranking and the headline of a sweep; without `short`, also the effects of hyperparameters."""
    out = console()
    versus = "vs best" if wording.reference(made) == "best" else "vs base"
    rows = table(
        "", "experiment", "loss", versus, "places", "tier", "energy", "g/kWh", "CO2eq", "at once", "wait",
        "started because",
        right=("", "loss", versus, "places", "energy", "g/kWh", "CO2eq", "at once", "wait"),
    )  # fmt: skip
    late = promises.late_starts(made)
    for row in listed(made):
        loss = f"{row.loss:.4f}" if row.loss is not None else row.status
        loss += f" ({row.seeds} seeds)" if row.seeds > 1 else ""
        half = f" ±{(row.high - row.low) / 2:.4f}" if row.high is not None and row.low is not None else ""
        rows.add_row(
            f"{row.place or ''}{'=' if row.tied and row.place != 1 else ''}",
            wording.name(row),
            loss,
            f"{row.difference:+.4f}{half}" if row.difference is not None else "",
            wording.places_of(row),
            row.tier,
            energy(row.energy_kwh),
            f"{row.mean_intensity:.0f}" if row.mean_intensity is not None else "",
            grams(row.emissions_g),
            grams(row.immediate_g) if row.immediate_g is not None else "",
            _waited(row, late),
            escape(row.reason or row.why),
        )
    out.print(rows)
    if more := unlisted(made):
        out.print(more)
    if any(row.tied and row.place != 1 for row in made.rows):
        out.print(f"[dim]= {wording.tie_note(made)}[/dim]")
    out.print()
    for line in headline(made):
        out.print(line)
    if not short:
        for effect in made.effects:
            verdict = {True: "", False: "  (within the noise)", None: ""}[effect.separable]
            change = f"{effect.param} {text(effect.low)} -> {text(effect.high)}"
            out.print(f"  {change:<28}{effect.difference:+.4f} over {counted(effect.pairs, 'pair')}{verdict}")
    for note in made.notes:
        out.print(f"[dim]{escape(note)}[/dim]")


def _waited(row: Row, late: Mapping[str, float]) -> str:
    if row.wait_h is None:
        return ""
    by = late.get(row.experiment)
    return hours(row.wait_h) + (f" [red]({hours(by)} late)[/red]" if by else "")


def headline(made: Report) -> list[str]:
    """Return the sweep's results in a few lines that all cover the same experiments."""
    best, of = made.best, wording.summed(made)
    lines = []
    if best:
        told = (wording.seeds(best), wording.against_baseline(made, best))
        lines.append(
            f"best:     {', '.join((f'{best.experiment}, validation loss {best.loss:.4f}', *filter(None, told)))}"
        )
    all_ = of.experiments == len(made.rows)
    lines.append(
        f"emitted:  {grams(of.emissions_g)} with {energy(of.energy_kwh)} in {hours(of.makespan_h)}"
        + (f", including {wording.lost(made)}" if all_ and wording.lost(made) else "")
    )
    if made.immediate_g is not None:
        lines.append(
            f"at once:  {grams(made.immediate_g)} in {hours(made.immediate_makespan_h or 0.0)} "
            "(same devices, same energy)"
        )
    if made.saving_g is not None and made.reduction is not None:
        word, colour = ("saved", "green") if made.saving_g >= 0 else ("lost", "red")
        lines.append(
            f"{word + ':':<9} [{colour}]{grams(abs(made.saving_g))}, {percent(abs(made.reduction))}[/{colour}]"
        )
    lines += [
        f"gate:     {emitted} in {span}, {less} than at once (the {name}, simulated on the same grid and work)"
        for name, emitted, less, span in wording.alternatives(made)
        if "gate" in name
    ]
    if said := wording.scope(made):
        lines.append(f"scope:    {said}")
    if said := wording.possible(made):
        lines.append(f"possible: {said}")
    if said := promises.promise(made):
        lines.append(f"promised: {escape(said)}")
    if said := promises.summary(made.overdue):
        lines.append(f"overdue:  [red]{escape(said)}[/red]")
    if said := wording.rungs(made):
        lines.append(f"rungs:    {said}")
    if said := asked.summary(made.requests):
        lines.append(f"asked:    {escape(said)}")
    return lines


def ending(made: Report, exit_code: int, paths: Sequence[Path], again: str) -> None:
    """Print how a run ended, how to resume it, and the path of its report (last)."""
    out = console()
    if exit_code != DONE:
        out.print(f"\n{escape(made.state)}: exit {exit_code} ({EXIT_CODES[exit_code]})")
        left = made.counts.get("waiting", 0)
        if left:
            out.print(f"{remaining(left)}; resume with: {escape(again)}")
    wrote(paths)


def configuration(made: Report, folder: Path) -> None:
    """Print the command that shows the recommended configuration, once there is one."""
    if made.best:
        print(f"configuration: gridsweep best {word(folder)} --as peft (or trl, axolotl)")


def wrote(paths: Sequence[Path]) -> None:
    """Print the path of the report."""
    print(f"report: {paths[0]}")


def detached(pid: int, folder: Path) -> None:
    """Print the process of a background run and the command that watches it."""
    print(f"process {pid} runs the sweep in {folder}; watch it with: gridsweep status --watch {folder}")


def held(state: State, standing: Standing) -> str:
    """Return which gate holds the experiment's attempt back, and why; "" if none does."""
    attempt = state.active.get(standing.attempts[-1]) if standing.attempts else None
    return attempt.held if attempt else ""


def latest_start(state: State, standing: Standing) -> datetime:
    """Return the time at which a waiting experiment starts regardless of the grid, if a device is free."""
    return standing.until or standing.ready_at + state.sweep.tier(standing.experiment.tier).max_delay


def explain(state: State, standing: Standing) -> None:
    """Print the state of one experiment and the reasons behind it."""
    out = console()
    experiment = standing.experiment
    tier = state.sweep.tier(experiment.tier)
    limit = f"starts at or below {tier.limit}, " if uses_limits(state.sweep) else ""
    out.print(f"[bold]{experiment.id}[/bold] is {standing.status}")
    out.print(
        f"tier      {tier.name}, because {escape(experiment.reason)}: {limit}"
        f"waits at most {hours(tier.max_delay / HOUR)}"
    )
    if standing.status == "waiting":
        latest = latest_start(state, standing)
        out.print(f"waits     {escape(standing.why or 'not considered yet')}")
        out.print(f"until     {latest:%Y-%m-%d %H:%M} UTC at the latest, or until a device is free after that")
        if len(state.history) and state.now:
            level = state.history.at(state.now)
            out.print(f"grid      {level:.0f} gCO2eq/kWh at {state.now:%Y-%m-%d %H:%M} UTC")
    elif begun := state.start_of(experiment.id):
        first = next(a for a in map(state.attempts.__getitem__, standing.attempts) if a.started_at == begun)
        out.print(f"started   {begun:%Y-%m-%d %H:%M} UTC on {first.device}: {escape(first.why)}")
    for missed in promises.overdue([one for one in overdue(state) if one.id == experiment.id]):
        out.print(f"overdue   [red]{escape(missed)}[/red]")
    if why := held(state, standing):
        out.print(f"held      by {escape(why)}")
    if standing.step:
        out.print(f"step      {standing.step} of {state.sweep.total_of(experiment)}")
    if standing.outcome and standing.outcome.validation_loss is not None:
        out.print(f"loss      {standing.outcome.validation_loss:.4f} on the validation samples")
    if standing.reason:
        out.print(f"reason    {escape(standing.reason)}")
    for id in standing.attempts:
        attempt = state.attempts[id]
        how = f"{attempt.end or 'running'}{': ' + attempt.reason if attempt.reason else ''}"
        out.print(
            f"attempt   {id} on {attempt.device}, "
            f"{clock(attempt.requested_at)} to {clock(attempt.ended_at)}, {escape(how)}"
        )


def silence(experiment: str, attempt: str, *, runs_on: bool) -> str:
    """Return the message of `logs` for an attempt without output."""
    so_far = "has printed nothing so far; --follow waits for more" if runs_on else "printed nothing"
    return f"the worker of {experiment} (attempt {attempt}) {so_far} (workers print warnings and errors only)"


def doctor(findings: Sequence[Finding]) -> None:
    """Print the findings of `doctor`."""
    out = console()
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    width = max(len(finding.what) for finding in findings) + 2
    for finding in findings:
        colour = colours[finding.state]
        advice = f" -> {finding.advice}" if finding.advice else ""
        out.print(f"[{colour}]{finding.state:<8}[/{colour}]{finding.what:<{width}}{escape(finding.seen + advice)}")


def adapters(listed: Sequence[Adapter]) -> None:
    """Print a table of finished adapters, best first."""
    out = console()
    rows = table("", "experiment", "loss", "CO2eq", "size", "path", right=("", "loss", "CO2eq", "size"))
    for a in listed:
        place = f"{a.place}{'=' if a.tied and a.place != 1 else ''}"
        size = f"{a.size_bytes / 1e6:.1f} MB"
        rows.add_row(place, a.experiment, f"{a.loss:.4f}", grams(a.emissions_g), size, escape(str(a.path)))
    out.print(rows)
    if any(a.tied and a.place != 1 for a in listed):
        out.print("[dim]= statistically tied with the best[/dim]")
