"""The Markdown report: tables that GitHub takes for tables, and names that stay text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hostile import HOSTILE

from gridsweep.accounting.compute_gardener import Gardened
from gridsweep.accounting.report import Report
from gridsweep.render import markdown


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells; a pipe behind a backslash is text."""
    found: list[list[list[str]]] = []
    for block in text.split("\n\n"):
        lines = block.strip().split("\n")
        if lines[0].startswith("|"):
            assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
            found.append([re.split(r"(?<!\\)\|", line)[1:-1] for line in lines])
    return found


@pytest.mark.parametrize("name", ["full", "fresh", "halfway", "unknown", "worse", "hostile"])
def test_tables_are_rectangular(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(name)
    found = tables(markdown.render(report))
    assert len(found) == (3 if report.effects else 2)
    for rows in found:
        assert {len(row) for row in rows} == {len(rows[0])}
        assert all(re.fullmatch(r" ---:? ", cell) for cell in rows[1])


def test_every_experiment_in_order(full: Report) -> None:
    ranking = tables(markdown.render(full))[0][2:]
    assert [row[1].strip() for row in ranking] == [f"`{row.experiment}`" for row in full.rows]
    assert ranking[-1][-1].strip() == "failed: the training loss is nan at step 35"
    assert [row[0].strip() for row in ranking[:5]] == ["1", "≈ 2", "≈ 3", "≈ 4", "5"]


def test_the_headline(full: Report, worse: Report, unknown: Report, fresh: Report) -> None:
    text = markdown.render(full)
    assert text.startswith("# demo\n\n**synthetic grid** · **replayed clock**\n")
    assert "**36.0 % less carbon than running at once.**" in text
    assert "80.8 % more carbon than running at once" in markdown.render(worse)
    assert "**Saving unknown.**" in markdown.render(unknown)
    assert "**No saving yet.**" in markdown.render(fresh)


def test_hostile_names_stay_text(hostile: Report) -> None:
    text = markdown.render(hostile)
    assert "<" not in re.sub(r"`[^`\n]*`", "", text)
    assert markdown.escape(HOSTILE) in text
    assert markdown.escape("a|b\nc") == "a\\|b c"
    assert markdown.escape("[x](javascript:y)") == "\\[x\\](javascript:y)"


def test_compute_gardeners_figures_stand_beside_ours(full: Report) -> None:
    id = full.rows[0].experiment
    text = markdown.render(replace(full, gardened={id: Gardened(180.0, 110.0)}))
    ours = f"{full.rows[0].mean_intensity:.0f}"
    assert f"{id}: 180 when held, 110 when released; {ours} on average over the run" in text


def test_a_stopped_experiment_is_called_so_once(full: Report) -> None:
    row = replace(full.rows[-1], status="stopped", reason="stopped at step 4 of 35: 4 of 8 go on")
    made = markdown.render(replace(full, rows=(*full.rows[:-1], row)))
    assert "| stopped at step 4 of 35: 4 of 8 go on |" in made and "stopped: stopped" not in made
