"""The price list of rung rules is what the race has written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from builders import PROJECT, make_sweep
from gridsweep.sweep.rung_prices import MEASURED_ON, PRICES, cheapest, price_of, rungs_told
from gridsweep.sweep.rungs import DEFAULT, EARLIER, Rungs, adapted

RACE = json.loads((PROJECT / "docs" / "results" / "rung-race.json").read_text(encoding="utf-8"))


def test_every_price_is_one_that_was_measured_and_none_that_is_worth_taking_is_missing():
    measured = {
        (tuple(row["at"]), tuple(row["keep"]), row["drift"]): (
            row["share_of_steps"], row["regret"], row["regret_upper_90"]
        )
        for row in RACE["prices"]
    }  # fmt: skip
    listed = {(p.rungs.at, p.rungs.keep, p.rungs.drift): (p.share, p.regret, p.limit) for p in PRICES}
    assert listed.items() <= measured.items()
    for key, (share, _, limit) in measured.items():
        if not any(s <= share and lim <= limit for other, (s, _, lim) in measured.items() if other != key):
            assert key in listed
    assert (DEFAULT.at, DEFAULT.keep, DEFAULT.drift) in listed


def test_the_default_is_the_rule_that_the_protocol_names():
    keep = ", ".join(map(str, DEFAULT.keep))
    assert keep in RACE["ships"]["rule"] and ("paired" in RACE["ships"]["rule"]) == (DEFAULT.drift is not None)


def test_the_number_of_sweeps_is_that_of_the_race():
    assert str(sum(RACE["families"]["judging"].values())) in MEASURED_ON


def test_the_cheapest_rule_within_a_regret_is_taken():
    for price in PRICES:
        taken = cheapest(price.limit)
        assert taken.share <= price.share and taken.limit <= price.limit
    with pytest.raises(ValueError, match=r"no rule is measured .* the least is"):
        cheapest(min(price.limit for price in PRICES) / 2)


def test_a_price_is_found_again_for_other_numbers_of_experiments_and_steps():
    for price in PRICES:
        assert price_of(price.rungs, 21, 1500, 75) is price
    short = adapted(DEFAULT, 21, 40, 2)
    found = price_of(short, 21, 40, 2)
    assert found is not None and short.at == DEFAULT.at[1:]
    assert price_of(Rungs((0.3,), (9,)), 21, 1500) is None
    assert price_of(replace(DEFAULT, drift=None, together=False), 21, 1500) is None


def test_what_was_measured_is_told_and_what_was_not_is_told_too():
    sweep = make_sweep(21, steps=240, rungs=DEFAULT)
    assert "a regret of" in rungs_told(sweep) and MEASURED_ON in rungs_told(sweep)
    assert "of 21:" not in rungs_told(sweep)
    short = make_sweep(21, steps=40, rungs=adapted(DEFAULT, 21, 40, 1))
    assert f"measured as {', '.join(map(str, DEFAULT.keep))} of 21:" in rungs_told(short)
    other = make_sweep(21, steps=240, rungs=Rungs((0.3,), (9,)))
    assert rungs_told(other).endswith("what this rule loses was not measured")
    assert rungs_told(make_sweep(21, steps=240, rungs=EARLIER)).startswith("rungs keep 11, 6, 3 of 21 at 0.125, 0.25")
