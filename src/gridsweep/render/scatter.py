"""The report's second picture: validation loss against emissions, one point per experiment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any  # plotly has no types

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.render import wording
from gridsweep.render.figures import Scale, energy, grams, loss, mass_scale, signed
from gridsweep.render.pictures import SYMBOLS, axis, colours, looks, note, safe
from gridsweep.sweep.experiments import number


def loss_against_carbon(report: Report) -> str | None:
    """Return the figure as JSON; None while no experiment has a loss."""
    from plotly import graph_objects as go

    rows = [row for row in report.rows if row.loss is not None and row.repeats is None]
    best = report.best
    if best is None or best.loss is None:
        return None
    scale = mass_scale(x for row in rows for x in (row.emissions_g, row.immediate_g))
    figure = go.Figure()
    if report.loss_noise is not None:
        _not_separable(figure, best.loss, report.loss_noise)
    if report.saving_g is not None:
        _if_at_once(figure, rows, scale)
    _by_tier(figure, report, rows, scale)
    base = wording.baseline(report)
    marks = [(best, "best, the baseline")] if base == best else [(best, "best"), (base, "baseline")]
    for marked, name in marks:
        if marked is not None and marked.loss is not None:
            _marked(figure, marked, name, scale)
    figure.update_layout(**looks(440), margin={"l": 8, "r": 16, "t": 62, "b": 48})
    figure.update_layout(
        xaxis=axis(title_text=f"emissions of the experiment, {scale.unit} CO₂eq", title_standoff=8),
        yaxis=axis(),
    )
    note(figure, x=0, xref="paper", y=1, yref="paper", yshift=4, text="validation loss, lower is better")
    return str(figure.to_json())


def _not_separable(figure: Any, least: float, noise: float) -> None:
    """Draw a band of the losses within the loss noise of the best."""
    top = least + noise
    figure.add_hrect(least, top, fillcolor="var(--curve)", opacity=0.15, line_width=0)
    note(figure, x=1, xref="paper", xanchor="right", y=top, text="statistically tied with the best")


def _by_tier(figure: Any, report: Report, rows: Sequence[Row], scale: Scale) -> None:
    """Draw experiments as points with their tier's colour and symbol; open symbols mark lower bounds."""
    by_tier = defaultdict(list)
    for row in rows:
        by_tier[row.tier].append(row)
    for i, (tier, colour) in enumerate(colours(report).items()):
        if not by_tier[tier]:
            continue
        figure.add_scatter(
            x=[row.emissions_g * scale.factor for row in by_tier[tier]],
            y=[row.loss for row in by_tier[tier]],
            customdata=[_described(report, row) for row in by_tier[tier]],
            mode="markers",
            name=safe(tier),
            marker={
                "color": colour,
                "symbol": [SYMBOLS[i % len(SYMBOLS)] + "-open" * wording.partly_unknown(row) for row in by_tier[tier]],
                "size": 11,
                "line": {"width": [2 if wording.partly_unknown(row) else 0 for row in by_tier[tier]]},
            },
            hovertemplate="%{customdata}<extra></extra>",
        )


def _marked(figure: Any, row: Row, name: str, scale: Scale) -> None:
    """Label an experiment with an arrow: the baseline above its point, the best below."""
    figure.add_annotation(
        x=row.emissions_g * scale.factor,
        y=row.loss,
        text=f"<b>{name}</b>",
        showarrow=True,
        arrowhead=0,
        arrowwidth=1,
        arrowcolor="var(--ink)",
        standoff=8,
        ax=34,
        ay=-30 if name == "baseline" else 30,
        font={"color": "var(--ink)"},
    )


def _if_at_once(figure: Any, rows: Sequence[Row], scale: Scale) -> None:
    """Draw a line from each experiment's emissions when run at once to its actual emissions."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row in rows:
        if row.immediate_g is not None:
            x += [row.immediate_g * scale.factor, row.emissions_g * scale.factor, None]
            y += [row.loss, row.loss, None]
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            name="run at once",
            hoverinfo="skip",
            opacity=0.6,
            line={"width": 1, "color": "var(--curve)", "dash": "dot"},
            marker={"size": 6, "symbol": "circle-open", "color": "var(--curve)"},
        )


def _described(report: Report, row: Row) -> str:
    bound = "at least " if wording.partly_unknown(row) else ""
    lines = [
        f"<b>{safe(row.experiment)}</b>, place {row.place}",
        f"r {row.r}, alpha {number(row.alpha)}, lr {number(row.lr)}, dropout {number(row.dropout)}"
        + safe(wording.also(row)),
        f"loss {loss(row.loss)}"
        + (f" ({signed(row.difference)} against the {wording.reference(report)})" if row.difference else ""),
        f"{bound}{grams(row.emissions_g)} CO₂eq with {energy(row.energy_kwh)}",
    ]
    if row.immediate_g is not None and report.saving_g is not None:
        lines.append(f"{grams(row.immediate_g)} when run at once")
    return "<br>".join(lines)
