"""A report as Markdown, for a pull request or a lab notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.render import accounts, asked, promises, wording
from gridsweep.render.condensed import listed, unlisted
from gridsweep.render.figures import energy, energy_scale, grams, hours, intensity, loss, mass_scale, signed
from gridsweep.sweep.experiments import number, text


def render(report: Report) -> str:
    """Return headline, ranking, effects and accounting as Markdown; names from users are escaped."""
    parts = [f"# {escape(report.sweep)}", *_headline(report), "## Ranking", *_ranking(report)]
    if report.overdue:
        parts += ["## Missed deadlines", "\n".join(f"- {escape(text)}" for text in promises.overdue(report.overdue))]
    if report.requests:
        parts += ["## What was asked", "\n".join(f"- {escape(text)}" for text in asked.sentences(report.requests))]
    if report.effects:
        parts += ["## Effect of each hyperparameter", *_effects(report)]
    if report.alternatives:
        parts += ["## Comparison with the gate and with running at once", *_alternatives(report)]
    parts += ["## Accounting", *_accounting(report)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text escaped so that GitHub shows it literally, in table cells too."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*_\[\]#~$!@])", r"\\\1", text)


def _headline(report: Report) -> list[str]:
    badges = " · ".join(f"**{escape(badge.text)}**" for badge in wording.badges(report))
    about = {"model": report.model, "dataset": report.dataset, "policy": report.policy, "zone": report.zone}
    saving = wording.saving(report)
    figure = saving.figure + (" carbon than running at once" if saving.kind in ("less", "more") else "")
    said = (saving.sentence, wording.possible(report), wording.rungs(report), wording.scope(report))
    of, told = wording.summed(report), promises.promise(report)
    best = f"`{report.best.experiment}`, " if report.best else ""
    return [
        *([badges] if badges else []),
        ", ".join(f"{key} {escape(value)}" for key, value in about.items()),
        f"**{figure}.** {' '.join(filter(None, said))}",
        "\n".join(
            (
                f"- Emissions: {grams(of.emissions_g)} CO2eq with {energy(of.energy_kwh)}",
                f"- Makespan: {wording.makespan(report)}",
                f"- Experiments: {wording.counts(report)}",
                *([f"- Promised by the plan: {escape(told)}"] if told else []),
                f"- Best: {best}{wording.winner(report)}",
            )
        ),
    ]


def _ranking(report: Report) -> list[str]:
    rows, late = listed(report), promises.late_starts(report)
    mass = mass_scale(x for row in rows for x in (row.emissions_g, row.immediate_g))
    kwh = energy_scale(row.energy_kwh for row in rows)
    heads = (
        "#", "experiment", "r", "alpha", "lr", "dropout", "tier", "loss", f"vs {wording.reference(report)}",
        f"energy, {kwh.unit}", "gCO2eq/kWh", f"CO2eq, {mass.unit}", f"at once, {mass.unit}", "wait",
        "started because",
    )  # fmt: skip
    lines = []
    for row in rows:
        ran = row.attempts > 0
        tied = "≈ " if row.tied and row.place != 1 else ""
        at_once = row.immediate_g if report.saving_g is not None else None
        lines.append((
            f"{tied}{row.place or ''}",
            f"`{wording.name(row)}`{wording.also(row)}",
            str(row.r),
            number(row.alpha),
            number(row.lr),
            number(row.dropout),
            escape(row.tier),
            loss(row.loss) if row.loss is not None else f"*{row.status}*",
            _compared(report, row),
            kwh.text(row.energy_kwh) if ran else "",
            intensity(row.mean_intensity) if ran else "",
            wording.emitted(row, mass) if ran else "",
            mass.text(at_once) if row.immediate_g is not None else "",
            _waited(row, late),
            escape(wording.outcome(row) if row.reason else row.why),
        ))  # fmt: skip
    note, more = wording.tie_note(report), unlisted(report)
    table = _table(heads, "rlrrrrlrrrrrrrl", lines)
    return [table, *([f"… {more}."] if more else []), *([f"≈ {note}."] if note else [])]


def _waited(row: Row, late: Mapping[str, float]) -> str:
    if row.wait_h is None:
        return ""
    by = late.get(row.experiment)
    return hours(row.wait_h) + (f" ({hours(by)} late)" if by else "")


def _compared(report: Report, row: Row) -> str:
    if row.experiment == report.reference:
        return wording.reference(report)
    return " ".join(filter(None, (signed(row.difference), _between(row))))


def _between(row: Row) -> str:
    interval = wording.interval(row)
    return f"({interval})" if interval else ""


def _effects(report: Report) -> list[str]:
    heads = ("change", "pairs", "mean change of the loss", "significant?")
    lines = [
        (
            f"{e.param} {escape(text(e.low))} → {escape(text(e.high))}",
            str(e.pairs),
            signed(e.difference),
            wording.verdict(e.separable),
        )
        for e in report.effects
    ]
    return [_table(heads, "lrrl", lines)]


def _alternatives(report: Report) -> list[str]:
    heads = ("", "CO2eq", "against at once", "makespan")
    return [_table(heads, "lrrr", wording.alternatives(report)), wording.ALTERNATIVES]


def _accounting(report: Report) -> list[str]:
    table = _table(("item", "value"), "ll", [(k, escape(v)) for k, v in accounts.accounting(report)])
    notes = "\n".join(f"- {escape(note)}" for note in report.notes)
    facts = ", ".join(f"{escape(name)} {escape(value)}" for name, value in sorted(report.facts.items()))
    return [part for part in (table, notes, f"Environment: {facts}" if facts else "") if part]


def _table(heads: Sequence[str], alignments: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a GitHub table; `alignments` has one `l` or `r` per column."""
    rule = ["---:" if side == "r" else "---" for side in alignments]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))
