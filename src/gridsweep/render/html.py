"""A report as one self-contained HTML file that needs no server and no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.resources import files
from typing import Any  # a template's variables

from gridsweep.accounting.leaderboard import Effect
from gridsweep.accounting.report import Report
from gridsweep.errors import GridsweepError
from gridsweep.render import accounts, asked, condensed, figures, pictures, promises, scatter, timeline, wording
from gridsweep.sweep.experiments import number, text


def render(report: Report) -> str:
    """Return the whole page. Raise `GridsweepError` if plotly or jinja2 is not installed."""
    try:
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise GridsweepError(
            f"the HTML report needs {error.name}, which is not installed; pip install 'gridsweep[report]'"
        ) from None

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        grams=lambda x: pretty(figures.grams(x)),
        energy=lambda x: pretty(figures.energy(x)),
        pretty=pretty,
        signed=lambda x: pretty(figures.signed(x)),
        hours=figures.hours,
        loss=figures.loss,
        intensity=figures.intensity,
        number=number,
        setting=text,
        clock=_clock,
        known=lambda x: "" if x is None else x,
    )
    limits = report.thresholds if report.policy == "threshold" else {}
    plotly, script = get_plotlyjs(), _shipped("report.js")
    rows, shown = condensed.listed(report), condensed.drawn(report)
    return environment.from_string(_shipped("report.html.jinja")).render(
        report=report,
        wording=wording,
        accounts=accounts,
        asked=asked,
        promises=promises,
        saving=wording.saving(report),
        summed=wording.summed(report),
        compare=_compare(report),
        colours=pictures.colours(report),
        mass=figures.mass_scale(x for row in rows for x in (row.emissions_g, row.immediate_g)),
        kwh=figures.energy_scale(row.energy_kwh for row in rows),
        strips=_strips(report),
        tied=wording.tie_note(report),
        **_condensed(report, shown),
        band=_band(report),
        pictures={
            name: Markup(embedded(text))
            for name, text in (
                ("timeline", timeline.timeline(shown, limits)),
                ("scatter", scatter.loss_against_carbon(replace(shown, rows=rows))),
            )
            if text is not None
        },
        style=Markup(_shipped("report.css")),
        plotly=Markup(plotly),
        script=Markup(script),
        # The browser runs these two scripts only and fetches nothing, so any unescaped user text stays inert.
        scripts=" ".join(_fingerprint(text) for text in (plotly, script)),
    )


def _condensed(report: Report, shown: Report) -> dict[str, Any]:
    """Return what the tables list, and what they and the pictures leave out."""
    rows = condensed.listed(report)
    ids = {row.experiment for row in rows}
    return {
        "rows": rows,
        "bars": [bar for bar in shown.bars if bar.experiment in ids],
        "late": defaultdict(float, promises.late_starts(report)),
        "left_out": condensed.left_out(report),
    }


def embedded(text: str) -> str:
    """Return JSON that is safe inside a script element: none of its characters can close the element."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def pretty(text: str) -> str:
    """Return text with a true minus sign before numbers and a subscript 2 in CO2eq."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "−", text).replace("CO2eq", "CO₂eq")


def _shipped(name: str) -> str:
    return (files("gridsweep.render") / name).read_text(encoding="utf-8")


def _fingerprint(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _clock(moment: datetime | None) -> str:
    return f"{moment:%d %b %H:%M}" if moment else ""


@dataclass(frozen=True, slots=True)
class Strip:
    """The strip of an effect, left or right of zero; `left` and `width` in percent of the column's width."""

    effect: Effect
    left: float
    width: float


def _strips(report: Report) -> list[Strip]:
    widths = [50 * abs(effect.difference) / _reach(report) for effect in report.effects]
    return [
        Strip(effect, 50 - width if effect.difference < 0 else 50.0, width)
        for effect, width in zip(report.effects, widths, strict=True)
    ]


def _band(report: Report) -> float:
    """Return half the width of the loss-noise band around zero, in percent of the strips' width."""
    return 50 * (report.loss_noise or 0.0) / _reach(report)


def _reach(report: Report) -> float:
    return max([abs(effect.difference) for effect in report.effects] + [report.loss_noise or 0.0]) or 1.0


def _compare(report: Report) -> tuple[float, float] | None:
    """Return the widths in percent of the bars for the actual emissions and for running at once."""
    if report.saving_g is None or not report.immediate_g:
        return None
    actual = report.immediate_g - report.saving_g
    largest = max(actual, report.immediate_g)
    return 100 * actual / largest, 100 * report.immediate_g / largest
