"""Pages of thousands of experiments: what is shown is bounded, and what is left out is counted and told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from builders import START, after
from gridsweep.accounting.report import Bar, Report
from gridsweep.render import condensed, html, markdown, terminal
from gridsweep.state.overdue import Overdue

N = 3000


@pytest.fixture
def large(full: Report) -> Report:
    """The report of the page's tests with thousands of experiments and stints, and half a year of five minutes."""
    row = next(row for row in full.rows if row.place == 2)
    rows = tuple(
        replace(row, experiment=f"e{n:05}", place=n + 1, loss=1 + n / N, tied=n < 9, emissions_g=1 + n / 7)
        for n in range(N)
    )
    bars = tuple(
        Bar(f"e{n:05}", row.tier, f"gpu{n % 3}", after(n / 9), after(n / 9 + 1 / 9), "ended")
        for n in reversed(range(N))
    )
    late = tuple(Overdue(f"e{n:05}", "start", START, after(9), 9 - n / N) for n in range(N))
    return replace(
        full, rows=rows, bars=bars, immediate_bars=bars, overdue=late, baseline="e02999", reference="e02999",
        counts={"done": N}, intensity=tuple(float(n % 300) for n in range(50_000)), intensity_step_h=1 / 12,
    )  # fmt: skip


def test_a_small_report_is_shown_whole(full: Report) -> None:
    assert condensed.listed(full) == full.rows and condensed.drawn(full) == full
    assert condensed.left_out(full) == condensed.unlisted(full) == ""
    assert "report.json holds all" not in html.render(full)


def test_the_data_of_a_page_are_bounded_and_what_is_left_out_is_told(large: Report) -> None:
    page = html.render(large)
    data = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert len(data.encode()) < 1_200_000
    told = "Of 3000 experiments, tables and pictures show 201, the best first; report.json holds all."
    assert page.count(told) == 2, "in the table's caption and in the picture's"
    assert "The picture draws 100 of 3000 bars (the stints)." in page
    assert "The intensity is drawn as means of 17 slots." in page
    assert "and 2900 more; report.json holds all" in page
    assert "100 of 3000 rows; times in UTC" in page
    assert page.count("<tr class=") == 201 and "e02999" in page and "e00199" in page and "e00200" not in data


def test_markdown_and_terminal_list_the_best_and_count_the_rest(large: Report, capsys) -> None:
    terminal.report(large)
    for text in (markdown.render(large), capsys.readouterr().out):
        assert "e00199" in text and "e00200" not in text and "e02999" in text
        assert "and 2799 experiments more; report.json holds all" in text


def test_a_stint_is_drawn_with_all_its_experiments(large: Report) -> None:
    packed = tuple(replace(bar, start=START, end=after(1), device="gpu0") for bar in large.bars)
    shown = condensed.drawn(replace(large, bars=packed, immediate_bars=()))
    assert (
        len(shown.bars) == N and condensed.left_out(replace(large, bars=packed, immediate_bars=())).count("bars") == 0
    )


def test_no_more_stints_are_drawn_than_a_picture_holds(large: Report) -> None:
    many = tuple(
        Bar("e00000", "t", "gpu0", START + n * timedelta(hours=1), START + (n + 1) * timedelta(hours=1), "paused")
        for n in range(900)
    )
    assert condensed.drawn(replace(large, bars=many)).bars == many[: condensed.STINTS]


def test_a_coarser_grid_is_the_mean_and_keeps_what_is_unknown(large: Report) -> None:
    values = (None, None, 100.0, None, 300.0, 100.0, 5.0)
    odd = replace(large, intensity=values * 1000, intensity_step_h=0.5)
    shown = condensed.drawn(odd)
    assert shown.intensity_step_h == 0.5 * 3 and shown.intensity_start == odd.intensity_start
    assert shown.intensity[:3] == (100.0, 200.0, 5.0)
    assert condensed.drawn(replace(odd, intensity=(None,) * 7000)).intensity == (None,) * -(-7000 // 3)


def test_the_picture_is_json(large: Report) -> None:
    page = html.render(large)
    for text in re.findall(r'<script type="application/json" id="figure-\w+">(.*?)</script>', page, re.S):
        assert json.loads(text)["data"]
