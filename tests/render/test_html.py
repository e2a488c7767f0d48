"""The HTML report: one file, offline, safe against names, and whole without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hostile import HOSTILE

from gridsweep.accounting.report import Bar, Report
from gridsweep.carbon.traces import HOUR
from gridsweep.errors import GridsweepError
from gridsweep.render import html, wording
from gridsweep.render.pictures import TIER_COLOURS, colours
from gridsweep.render.timeline import timeline


class Page(HTMLParser):
    """What a browser would make of a page: tags, the ranking's cells, scripts, text."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._in_ranking = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self._in_ranking = given.get("id") == "ranking"
        if tag == "script":
            self.scripts.append((given, ""))
        if self._in_ranking and tag == "tr":
            self.cells.append([])
        if self._in_ranking and tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        self._in_ranking &= tag != "table"

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        self.texts.setdefault(where, []).append(data)
        if where == "script":
            given, before = self.scripts[-1]
            self.scripts[-1] = (given, before + data)
        if self._in_ranking and self.cells and self.cells[-1]:
            self.cells[-1][-1] = f"{self.cells[-1][-1]} {data.strip()}".strip()

    def figure(self, name: str) -> dict[str, Any]:
        (text,) = [text for given, text in self.scripts if given.get("id") == f"figure-{name}"]
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def words(self) -> str:
        return " ".join(" ".join(" ".join(t) for k, t in self.texts.items() if k not in ("script", "style")).split())


@pytest.fixture(scope="module")
def page(full: Report) -> Page:
    return Page(html.render(full))


def test_the_file_is_whole_and_small_enough(full: Report) -> None:
    text = html.render(full)
    assert text.startswith("<!doctype html>")
    assert len(text.encode()) < 6_000_000
    assert text == html.render(full)


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not attributes.keys() & {"src", "href", "srcset", "action", "data", "style"} or tag in {
            "i",
            "u",
        }
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style


def test_only_our_two_scripts_may_run(page: Page) -> None:
    (policy,) = [a["content"] or "" for t, a in page.tags if t == "meta" and "http-equiv" in a]
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    run = [text for given, text in page.scripts if given.get("type") != "application/json"]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run} == allowed
    assert len(run) == 2
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, given in page.tags for name in given)


def test_every_experiment_is_in_the_ranking_in_order(page: Page, full: Report) -> None:
    head, *rows = page.cells
    assert [row[1] for row in rows] == [row.experiment for row in full.rows]
    assert {len(row) for row in rows} == {len(head)}
    first = full.rows[0]
    assert rows[0][0] == f"1 {wording.places_of(first)}"
    assert rows[0][7] == f"{first.loss:.4f}"
    assert "at or below" in rows[0][-1]
    assert "failed: the training loss is nan at step 35" in rows[-1][-1]


def test_the_cells_of_the_ranking_may_wrap_so_that_no_column_is_cut(page: Page) -> None:
    rules = dict(re.findall(r"^([^@{}\n]+) \{([^}]*)\}", "".join(page.texts["style"]), re.M))
    for name in ("#ranking tbody th", "#ranking .why"):
        assert "overflow-wrap: anywhere" in rules[name] and "nowrap" not in rules[name]
    assert "white-space: normal" in rules["td small"]


def test_a_status_is_not_said_twice(full: Report) -> None:
    first, *rest = full.rows
    stopped = replace(first, place=None, status="stopped", reason="stopped at step 9 of 35: 6 of 11 continue")
    (cells,) = (row for row in Page(html.render(replace(full, rows=(*rest, stopped)))).cells if first.experiment in row)
    assert "stopped at step 9" in cells[-1] and "stopped: stopped" not in cells[-1]


def test_ties_are_said_to_be_ties(page: Page, full: Report) -> None:
    tied = [row[1] for row in page.cells[1:] if "statistically tied" in row[0]]
    assert tied == [row.experiment for row in full.rows[1:] if row.tied]
    assert tied


def test_no_noise_stated_means_no_verdict(full: Report) -> None:
    blind = replace(
        full,
        loss_noise=None,
        rows=tuple(replace(row, tied=False) for row in full.rows),
        effects=tuple(replace(effect, separable=None) for effect in full.effects),
    )
    words = Page(html.render(blind)).words
    assert "close places may be chance" in words
    assert "unknown: no loss noise stated" in words
    assert "within the noise" not in words


def test_the_headline_and_the_badges(page: Page, full: Report) -> None:
    assert [text.strip() for text in page.texts["span"] if "grid" in text or "clock" in text][:2] == [
        "synthetic grid",
        "replayed clock",
    ]
    assert full.reduction is not None
    assert f"{full.reduction * 100:.1f} % less" in page.words
    assert "20 done, 1 failed" in page.words
    assert "not an inventory figure and not an offset" in page.words


def test_it_is_accessible(page: Page) -> None:
    tags = page.tags
    assert ("html", {"lang": "en"}) in tags
    assert sum(tag == "h1" for tag, _ in tags) == 1
    tables, captions = (sum(tag == name for tag, _ in tags) for name in ("table", "caption"))
    assert tables == captions == 3
    ids = {given["id"] for _, given in tags if "id" in given}
    named = [given["aria-labelledby"] for _, given in tags if "aria-labelledby" in given]
    assert set(named) <= ids
    assert sum(given.get("role") == "img" for _, given in tags) == 2


def test_the_timeline_holds_every_stint(page: Page, full: Report) -> None:
    bars = [trace for trace in page.figure("timeline")["data"] if trace["type"] == "bar"]
    (marks,) = [trace for trace in bars if trace["name"] == "stints"]
    ran = [trace for trace in bars if trace is not marks and trace["marker"]["pattern"]["shape"] != "/"]
    other = [trace for trace in bars if trace is not marks and trace["marker"]["pattern"]["shape"] == "/"]
    for drawn, wanted in ((ran, full.bars), (other, full.immediate_bars)):
        pieces = {
            (re.sub(r"</?b>| run at once", "", told.split("<br>")[0]), base[:16], length)
            for trace in drawn
            for told, base, length in zip(trace["customdata"], trace["base"], trace["x"], strict=True)
        }
        assert pieces == {
            (b.experiment, f"{b.start:%Y-%m-%d %H:%M}", (b.end - b.start) / timedelta(milliseconds=1)) for b in wanted
        }
    assert set(marks["text"]) == {f"#{n}" for n in range(1, 21)} | {"×"}


def test_a_stint_of_several_tiers_counts_all_its_experiments_and_shows_every_tier(full: Report) -> None:
    def bar(id: str, tier: str, start: int) -> Bar:
        return Bar(id, tier, "cpu0", full.submitted_at + start * HOUR, full.submitted_at + (start + 1) * HOUR, "ended")

    first = [
        bar(row.experiment, tier, 0) for row, tier in zip(full.rows, ["urgent"] * 8 + ["normal"] * 2, strict=False)
    ]
    after = [bar(row.experiment, "normal", 1) for row in full.rows[:6]]
    drawn = json.loads(timeline(replace(full, bars=(*first, *after), immediate_bars=(*first,))) or "")["data"]
    (marks,) = [trace for trace in drawn if trace["name"] == "stints"]
    assert marks["text"] == ["10", "6"]
    bars = {
        t["name"]: t for t in drawn if t["type"] == "bar" and t is not marks and t["marker"]["pattern"]["shape"] != "/"
    }
    assert {name: [round(w / 0.74, 3) for w in trace["width"]] for name, trace in bars.items()} == {
        "urgent": [0.8],
        "normal": [0.2, 1.0],
    }
    lane = marks["y"][0]
    top, bottom = (
        bars[name]["y"][0] + sign * bars[name]["width"][0] / 2 for name, sign in (("urgent", -1), ("normal", 1))
    )
    assert (top, bottom) == (pytest.approx(lane - 0.37), pytest.approx(lane + 0.37))
    assert bars["urgent"]["y"][0] < bars["normal"]["y"][0]
    assert "<b>10 experiments</b>" in bars["normal"]["customdata"][0]
    assert "8 of urgent, 2 of normal, on cpu0" in bars["normal"]["customdata"][0]
    ghosts = [
        trace for trace in drawn if trace["type"] == "bar" and trace["marker"].get("pattern", {}).get("shape") == "/"
    ]
    assert sum(trace["width"][0] for trace in ghosts) == pytest.approx(0.4)
    spans = [next(y for y in trace["y"] if y is not None) for trace in drawn[1:] if trace["type"] == "scatter"]
    assert len(set(spans)) == 2  # both tiers of the first stint can be seen on the line


def test_a_stint_lies_on_the_line_at_the_intensity_it_met(page: Page, full: Report) -> None:
    curve, *others = page.figure("timeline")["data"]
    assert curve["y"][:-1] == list(full.intensity)
    level = dict(zip(curve["x"], curve["y"], strict=True))
    spans = [trace for trace in others if trace["type"] == "scatter"]
    assert [trace["name"] for trace in spans] == ["urgent", "normal", "patient"]
    met = [(x, y) for trace in spans for x, y in zip(trace["x"], trace["y"], strict=True) if y and x in level]
    assert len(met) > 20
    highest = max(level.values())
    # At its end a stint still shows the slot it is in, which ends there.
    before = dict(zip(curve["x"][1:], curve["y"], strict=False))
    assert all(min(abs(y - level[x]), abs(y - before.get(x, y))) < 0.06 * highest for x, y in met)


def test_one_colour_a_tier_in_every_picture(page: Page, full: Report) -> None:
    assert colours(full) == dict(zip(("urgent", "normal", "patient"), TIER_COLOURS, strict=False))
    for trace in page.figure("scatter")["data"]:
        if trace["name"] in colours(full):
            assert trace["marker"]["color"] == colours(full)[trace["name"]]


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_can_be_read(page: Page) -> None:
    schemes = re.findall(r":root \{(.*?)\}", "".join(page.texts["style"]), re.S)
    assert len(schemes) == 3
    for scheme in schemes:
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        for back in ("page", "card", "tint"):
            for text in ("ink", "muted", "good", "bad"):
                assert contrast(colour[text], colour[back]) >= 4.5, (text, back)
        assert contrast(colour["warn"], colour["warn-back"]) >= 4.5
        for tier in TIER_COLOURS[:3]:
            assert contrast(tier, colour["card"]) >= 3
    assert all(contrast(tier, "#ffffff") >= 4.5 for tier in TIER_COLOURS)


def test_hostile_names_stay_text(hostile: Report) -> None:
    text = html.render(hostile)
    page = Page(text)
    assert "img" not in {tag for tag, _ in page.tags}
    assert len(page.scripts) == 4
    assert not any(name.startswith("on") for _, given in page.tags for name in given)
    assert HOSTILE in page.words
    for name in ("timeline", "scatter"):
        words = json.dumps(page.figure(name))
        assert "<img" not in words
        assert "&lt;img" in words


def test_a_negative_saving_is_red_and_never_clipped(worse: Report) -> None:
    assert worse.reduction is not None
    assert worse.reduction < -0.5
    page = Page(html.render(worse))
    assert "hero more" in [given.get("class") for _, given in page.tags]
    assert f"{-worse.reduction * 100:.1f} % more" in page.words
    assert "lost by waiting" in page.words


def test_an_unknown_saving_says_why(unknown: Report) -> None:
    page = Page(html.render(unknown))
    assert "Saving unknown" in page.words
    assert "30.0 Wh was used at unknown intensity" in page.words
    bounds = [row for row in page.cells[1:] if row[11].startswith("≥") or row[11] == "unknown"]
    assert {row[1] for row in bounds} == {
        row.experiment for row in unknown.rows if wording.partly_unknown(row) or row.mean_intensity is None
    }
    assert len(bounds) == 2
    boxes = [shape for shape in page.figure("timeline")["layout"]["shapes"] if shape["type"] == "rect"]
    assert len(boxes) == 1


def test_before_anything_has_run(fresh: Report) -> None:
    page = Page(html.render(fresh))
    assert "No saving yet" in page.words
    assert "No experiment has ended yet" in page.words
    assert "No grid data was read and no experiment has started yet" in page.words
    assert [row[7] for row in page.cells[1:]] == ["waiting"] * 21


def test_halfway(halfway: Report) -> None:
    page = Page(html.render(halfway))
    assert "The comparison covers the 12 of 21 experiments that have ended." in page.words
    assert "running" in [text.strip() for text in page.texts["span"]]


def test_thresholds_are_drawn_in_their_tiers_colours(full: Report) -> None:
    drawn = json.loads(timeline(full, {"urgent": 225.0, "patient": 125.0}) or "")
    lines = [s for s in drawn["layout"]["shapes"] if s["line"].get("dash") == "dash"]
    assert [(line["y0"], line["line"]["color"]) for line in lines] == [
        (225.0, TIER_COLOURS[0]),
        (125.0, TIER_COLOURS[2]),
    ]


@pytest.mark.parametrize("missing", ["plotly.offline", "jinja2"])
def test_what_is_not_installed_is_named(full: Report, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(GridsweepError, match=re.escape("pip install 'gridsweep[report]'")):
        html.render(full)
