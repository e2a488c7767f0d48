"""The model card: front matter that parses, and the report's own figures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hostile import HOSTILE

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.render import card


def front(text: str) -> dict[str, Any]:
    start, matter, _ = re.split(r"^---\n", text, maxsplit=2, flags=re.M)
    assert not start
    found: dict[str, Any] = yaml.safe_load(matter)
    return found


def test_the_front_matter(full: Report) -> None:
    row = full.rows[1]
    made = front(card.render(full, row))
    emissions = made["co2_eq_emissions"]
    assert made["base_model"] == "tiny-qwen2"
    assert made["library_name"] == "peft"
    assert made["tags"] == ["lora", "gridsweep"]
    assert "datasets" not in made  # stdlib is made on the spot: the hub does not know it
    assert emissions["emissions"] == row.emissions_g
    assert emissions["training_type"] == "fine-tuning"
    assert emissions["geographical_location"] == "synthetic-solar-valley"
    assert emissions["hardware_used"] == "cpu"
    assert emissions["source"].startswith("gridsweep")
    assert "100.0 % modelled" in emissions["source"]
    assert "synthetic" in emissions["source"]


def test_the_cards_of_a_sweep_sum_to_its_emissions(full: Report) -> None:
    total = sum(front(card.render(full, row))["co2_eq_emissions"]["emissions"] for row in full.rows)
    assert total == pytest.approx(full.emissions_g - full.idle_g)


def test_the_text(full: Report) -> None:
    text = card.render(full, full.rows[1])
    assert "place 2 by validation loss (statistically tied with the first)" in text
    assert "| 32 | 128 | 1e-4 | 0.1 |" in text
    assert f"**{full.rows[1].loss:.4f}**" in text
    assert "The whole sweep that found this adapter emitted 48.2 g CO2eq" in text
    assert "The grid is synthetic" in text
    assert "dataset\\_digest" in text


@pytest.mark.parametrize(
    ("model", "base"),
    [("tiny-qwen2", "tiny-qwen2"), ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"), ("/home/me/base", "base")],
)
def test_how_to_load_it_is_python(full: Report, model: str, base: str) -> None:
    text = card.render(replace(full, model=model), full.rows[0])
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    compile(code, "card", "exec")
    assert repr(base) in code
    assert front(text)["base_model"] == base
    assert "/home/me" not in text


def test_a_dataset_of_the_hub_is_named(full: Report) -> None:
    made = replace(full, dataset="nvidia/HelpSteer2")
    assert front(card.render(made, made.rows[0]))["datasets"] == ["nvidia/HelpSteer2"]
    made = replace(full, dataset="./pairs.jsonl")
    assert "datasets" not in front(card.render(made, made.rows[0]))


def test_unknown_emissions_are_not_zero(unknown: Report) -> None:
    def emitted(row: Row) -> Any:
        return front(card.render(unknown, row))["co2_eq_emissions"].get("emissions")

    missing = [row for row in unknown.rows if emitted(row) is None]
    assert len(missing) == 2
    assert "at least" in card.render(unknown, missing[0])


def test_a_failed_experiment(full: Report) -> None:
    text = card.render(full, full.rows[-1])
    assert "which is failed: the training loss is nan at step 35" in text
    assert "There is no validation loss." in text


def test_hostile_names_stay_text(hostile: Report) -> None:
    text = card.render(hostile, hostile.rows[0])
    made = front(text)
    assert made["base_model"] == HOSTILE
    assert made["co2_eq_emissions"]["geographical_location"] == HOSTILE
    body = re.sub(r"^```python\n.*?^```$", "", text.split("\n---\n", 1)[1], flags=re.S | re.M)
    assert "<img" not in body
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    compile(code, "card", "exec")
