"""`sweep.yaml` to `Sweep`: what is read, and what every kind of wrong file gets."""

from __future__ import annotations

import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builders import PROJECT
from gridsweep.errors import SpecError
from gridsweep.policy.registry import OPTIONS
from gridsweep.records import codec
from gridsweep.runs.amendments import amendments
from gridsweep.spec import file as spec_file
from gridsweep.spec import json_schema, load, loads, study, template
from gridsweep.spec.faults import _sections_in, keys
from gridsweep.spec.study import Section
from gridsweep.sweep import designs
from gridsweep.sweep.clusters import Limits
from gridsweep.sweep.experiments import Columns, Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import CarbonSource, PolicyChoice, Replay, Sweep

EXAMPLES = sorted((PROJECT / "examples").glob("*.yaml"))

LEAST = """\
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
"""
SPACE = "space: {r: [16, 32], alpha: [32, 64, 128], lr: [1e-4, 5e-5, 1e-5], dropout: [0.05, 0.1, 0.15]}\n"


def faults(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        loads(text)
    return str(caught.value).splitlines()


# What is read


def test_the_least_spec_is_the_published_sweep_on_another_model() -> None:
    sweep = loads(LEAST, "a/My First sweep.yaml")
    assert sweep.name == "my-first-sweep"
    assert (sweep.model, sweep.recipe) == (Model("org/model"), Recipe())
    assert tuple(e.params for e in sweep.experiments) == designs.published()
    assert sweep.tiers == designs.PUBLISHED_TIERS
    assert sweep.devices == (Device("device0", power_w=425.0),)
    assert sweep.carbon == CarbonSource() and sweep.executor.name == "local"
    assert sweep.policy == PolicyChoice(
        "planned", {"min_saving": 0.05, "pausing": True, "max_pauses": 6, "exact": False}
    )
    assert sweep.tick == timedelta(minutes=30)
    assert sweep.finish_by is None and sweep.replay is None
    assert sweep.baseline == sweep.experiments[0].id


def test_an_experiment_knows_its_tier_and_the_reason_for_it() -> None:
    experiments = loads(LEAST).experiments
    assert [e.tier for e in experiments] == ["tier1"] * 8 + ["tier2"] * 4 + ["tier3"] * 9
    assert experiments[12].reason == "r == 32 and alpha == 128"
    assert {e.seed for e in experiments} == {42}


def test_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "pairs.jsonl").touch()
    (tmp_path / "grid.csv").touch()
    path = tmp_path / "sweep.yaml"
    path.write_text("""\
name: all-of-it
model: {id: ./base, revision: null}
dataset: {id: pairs.jsonl, split: "train[:50%]", train_samples: 100, validation_samples: 20}
recipe: {epochs: 0.5, batch_size: 3, accumulation: 2, learning_rate_schedule: linear, target_modules: [q]}
space: {r: 8, alpha: [16, 32.5], lr: ["1e-4", 2E-5], dropout: [0, .1]}
design: {one_factor: {baseline: {r: 8, alpha: 32.5, lr: 1e-4}}}
tiers: [{name: now, threshold: 1e3, max_delay: 0h}, {name: later, threshold: 100, max_delay: 1d12h}]
rules: [{tier: later, when: {alpha: "!= 32.5", dropout: "< 0.2"}}, {tier: now}]
carbon: {provider: trace, zone: NO, file: grid.csv}
policy: {on_off: {pause_above: 250, resume_below: 200}}
devices: [{name: a, memory_gb: 24, speed: 2, power_w: 300, idle_power_w: 20}, {name: b}]
estimates: {duration: 1h30m, power_w: 425}
tick: 45s
finish_by: 2026-12-01T09:00:00+01:00
clock: {replay: {from: 2024-06-10T06:00:00Z, speed: 360}}
""")
    sweep = load(path)
    assert sweep.model == Model(str(tmp_path / "base"))
    assert sweep.dataset == Dataset(str(tmp_path / "pairs.jsonl"), None, "train[:50%]", 100, 20)
    assert sweep.total_steps == 9  # half of ceil(100 / 6), rounded up
    assert [(e.params, e.tier) for e in sweep.experiments] == [
        (LoraParams(8, 32.5, 1e-4, 0.0), "now"),
        (LoraParams(8, 16.0, 1e-4, 0.0), "later"),
        (LoraParams(8, 32.5, 2e-5, 0.0), "now"),
        (LoraParams(8, 32.5, 1e-4, 0.1), "now"),
    ]
    assert sweep.experiments[1].reason == "alpha != 32.5 and dropout < 0.2"
    assert [(t.name, t.max_delay, t.rank) for t in sweep.tiers] == [
        ("now", timedelta(0), 1),
        ("later", timedelta(hours=36), 2),
    ]
    assert sweep.carbon == CarbonSource("trace", "NO", str(tmp_path / "grid.csv"))
    assert sweep.policy == PolicyChoice("on_off", {"pause_above": 250.0, "resume_below": 200.0})
    assert sweep.devices == (Device("a", 24.0, 2.0, 300.0, 20.0), Device("b", power_w=425.0))
    assert sweep.tick == timedelta(seconds=45)
    assert sweep.finish_by == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert sweep.replay == Replay(datetime(2024, 6, 10, 6, tzinfo=UTC), 360.0)
    assert not sweep.follows_work
    path.write_text(path.read_text().replace("speed: 360", "speed: auto"))
    assert load(path).follows_work


def test_a_trace_of_ones_own_is_a_zone_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "FI_2023.csv").touch()
    sweep = loads(LEAST + "carbon: {file: ./FI_2023.csv}\n", tmp_path / "sweep.yaml")
    assert sweep.carbon == CarbonSource("trace", "FI_2023", str(tmp_path / "FI_2023.csv"))


@pytest.mark.parametrize(
    ("design", "count"),
    [("", 54), ("design: grid\n", 54), ("design: one_factor\n", 8), ("design: {sample: {n: 20}}\n", 20)],
)
def test_designs_expand_a_space(design: str, count: int) -> None:
    sweep = loads(LEAST + SPACE + design)
    assert len({e.id for e in sweep.experiments}) == count
    assert sweep.baseline == sweep.experiments[0].id


def test_a_one_factor_design_starts_from_the_first_value_of_each_axis() -> None:
    assert loads(LEAST + SPACE + "design: one_factor\n").experiments[0].params == LoraParams(16, 32, 1e-4, 0.05)


def test_a_single_tier_needs_no_rules() -> None:
    sweep = loads(LEAST + "tiers: [{name: any, threshold: 200, max_delay: 1d}]\n")
    assert {e.tier for e in sweep.experiments} == {"any"}


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", '"1e-4"', "0.0001", "+1E-4", "!!float 1e-4"])
def test_a_learning_rate_is_a_number_however_it_is_written(written: str) -> None:
    text = LEAST + f"space: {{r: 16, alpha: 32, lr: [{written}], dropout: 0}}\n"
    if written.startswith("!!"):
        assert "the tag 'tag:yaml.org,2002:float' is not allowed" in faults(text)[0]
    else:
        assert loads(text).experiments[0].params.lr == 1e-4


@pytest.mark.parametrize(
    ("written", "span"),
    [
        ("24h", timedelta(hours=24)),
        ("90m", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("45s", timedelta(seconds=45)),
        ("2d", timedelta(days=2)),
        ("51.5h", timedelta(hours=51.5)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
    ],
)
def test_lengths_of_time(written: str, span: timedelta) -> None:
    assert loads(LEAST + f"finish_by: {written}\n").finish_by == span


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("{}", 375),
        ("{steps: 7, epochs: 2}", 7),
        ("{batch_size: 1, accumulation: 8, epochs: 1}", 125),
        ("{batch_size: 3, accumulation: 1, epochs: 1}", 334),
        ("{batch_size: 2, accumulation: 1, epochs: 0.07}", 35),  # 500 * 0.07 is 35.00000000000001 in floats
    ],
)
def test_steps_are_counted_by_epochs_unless_given(recipe: str, steps: int) -> None:
    assert loads(LEAST + f"recipe: {recipe}\n").total_steps == steps


def test_words_mean_what_they_mean_in_yaml_1_2() -> None:
    assert loads(LEAST + "carbon: {zone: NO}\n").carbon.zone == "NO"
    assert loads(LEAST + "name: on\n").name == "on"


def test_an_empty_section_counts_as_absent() -> None:
    assert loads(LEAST + "recipe:\nspace:\ntiers:\n").recipe == Recipe()


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert load(path) == loads(LEAST)


def test_an_alias_repeats_a_value() -> None:
    text = LEAST + "tiers: [{name: a, threshold: 200, max_delay: &day 1d}, {name: b, threshold: 100, max_delay: *day}]"
    sweep = loads(text + "\nrules: [{tier: a, when: {r: 16}}, {tier: b}]\n")
    assert [t.max_delay for t in sweep.tiers] == [timedelta(days=1)] * 2


# What every kind of wrong file gets

MANY = """\
name: My Sweep
model: ./nowhere
dataset: {id: stdlib, train_samples: 1e2}
recipe:
  epochs: true
  learning_rate: 2e-4
  warmup: .nan
  seed: 1
  seed: 2
space:
  r: [16, 32, 0]
  alpha: [32, 32.0]
  lr: ["1e-4", 1e-5]
  dropout: 1.0
desing: grid
tiers:
  - name: urgent
    threshold: 225
    max_dely: 24h
  - {name: urgent, threshold: -1, max_delay: 90}
rules:
  - {tier: urgnt, when: {r: 16}}
  - {tier: urgent, when: {learning_rate: "<= 1e-5", dropout: "=> 0.1"}}
carbon: {provider: trase, file: solar-vally}
policy: {on_off: {pause_above: 100, resume_below: 200}}
executor: locl
devices:
  - {name: gpu0}
  - {name: gpu0, speed: 0}
finish_by: 2026-12-01T08:00:00
clock: !!python/object:os.system {replay: {from: yesterday, speed: 300}}
"""

MANY_FAULTS = """\
sweep.yaml:1: estimates: missing; add it: the duration and power of one experiment, for plan and simulate
sweep.yaml:1: name: must be lower-case letters, digits and '-', at most 63, not 'My Sweep'
sweep.yaml:2: model: there is no file or folder './nowhere' in {folder}; correct the path
sweep.yaml:5: recipe.epochs: must be a number above 0 and at most 10,000, not true
sweep.yaml:6: recipe.learning_rate: unknown key; did you mean learning_rate_schedule?
sweep.yaml:7: recipe.warmup: must be a number at least 0 and below 1, not nan
sweep.yaml:9: recipe.seed: given twice, first in line 8; delete one of them
sweep.yaml:11: space.r[2]: must be a whole number at least 1 and at most 65,536, not 0
sweep.yaml:12: space.alpha: 32 is given twice; delete one
sweep.yaml:14: space.dropout: must be a number at least 0 and below 1, not 1
sweep.yaml:15: desing: unknown key; did you mean design?
sweep.yaml:19: tiers[0].max_dely: unknown key; did you mean max_delay?
sweep.yaml:20: tiers[1].max_delay: 90 has no unit; write 90m for minutes, or h, d, s
sweep.yaml:20: tiers[1].name: 'urgent' is already the name of tiers[0]; choose another
sweep.yaml:20: tiers[1].threshold: must be a number at least 0 and at most 5,000, or a percentile such as p40, not -1
sweep.yaml:22: rules[0].tier: there is no tier 'urgnt'; did you mean urgent?
sweep.yaml:23: rules[1].when.dropout: must be a number or a comparison such as ">= 0.15", not '=> 0.1'
sweep.yaml:23: rules[1].when.learning_rate: unknown key; did you mean lr?
sweep.yaml:24: carbon.file: there is no file 'solar-vally' in {folder}; did you mean solar-valley?
sweep.yaml:24: carbon.provider: 'trase' is unknown; did you mean trace?
sweep.yaml:25: policy.on_off.resume_below: must be at most pause_above, 100, not 200
sweep.yaml:26: executor: 'locl' is unknown; did you mean local?
sweep.yaml:29: devices[1].name: 'gpu0' is already the name of devices[0]; choose another
sweep.yaml:29: devices[1].speed: must be a number at least 0.001 and at most 1,000, not 0
sweep.yaml:30: finish_by: 2026-12-01T08:00:00 has no time zone; write 2026-12-01T08:00:00Z if it is UTC
sweep.yaml:31: clock: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed; write plain text, \
numbers and lists
sweep.yaml:31: clock.replay.from: must be a time such as 2026-12-01T08:00:00Z, not 'yesterday'
"""


def test_all_errors_of_a_file_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults(MANY) == MANY_FAULTS.replace("{folder}", str(tmp_path)).splitlines()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "design: published\n" + SPACE,
            "5: space: not used by design published, a fixed list of 21 points; remove space",
        ),
        ("design: grid\n", "1: space: missing; add the values of r, alpha, lr and dropout"),
        ("design: gird\n", "4: design: 'gird' is unknown; did you mean grid?"),
        (
            "design: {grid: , sample: }\n",
            "4: design: must have exactly one key, not 2 (grid, sample); choose one of: published, grid, ",
        ),
        ("design: sample\n" + SPACE, "4: design.sample.n: missing; add it: how many points"),
        (
            SPACE + "design: {sample: {n: 55}}\n",
            "5: design.sample.n: must be at most 54, the size of the grid, not 55",
        ),
        (
            SPACE + "design: {one_factor: {baseline: {r: 8}}}\n",
            "5: design.one_factor.baseline.r: must be a value of space.r (16, 32), not 8",
        ),
        ("space: {r: [], alpha: 1, lr: 1, dropout: 0}\n", "4: space.r: is empty; give at least one element"),
        ("space: {}\n", "4: space: names no axis; give the values of one"),
        ("space: {r: -1, alpha: 1, lr: 1, dropout: 0}\n", "4: space.r: must be a whole number at least 1"),
        ("space: {r: 1.5, alpha: 1, lr: 1, dropout: 0}\n", "4: space.r: must be a whole number at least 1"),
        ("space: {r: 1, alpha: 0, lr: 1, dropout: 0}\n", "4: space.alpha: must be a number above 0"),
        ("space: {r: 1, alpha: 1, lr: .inf, dropout: 0}\n", "4: space.lr: must be a number above 0"),
        ("space: {r: 1, alpha: 1, lr: 1, dropout: -0.1}\n", "4: space.dropout: must be a number at least 0"),
        (
            "space: {rank: 1, alpha: 1, lr: 1, dropout: 0}\n",
            "4: space.rank: unknown key; did you mean r?",
        ),
        ("tiers: []\n", "4: tiers: is empty; give at least one element"),
        (
            "tiers: [{name: a, threshold: 1, max_delay: 1h}, {name: b, threshold: 1, max_delay: 1h}]\n",
            "1: rules: missing; add rules for your tiers: the default rules need the tiers tier1, tier2, tier3",
        ),
        (
            "rules:\n  - {tier: tier1, when: {r: 16}}\n",
            "4: rules: no rule assigns a tier to: r=32 alpha=32 lr=1e-4 dropout=0.1, "
            "r=32 alpha=64 lr=1e-4 dropout=0.05, r=32 alpha=64 lr=1e-4 dropout=0.1, and 10 more; "
            "end with a rule without `when`",
        ),
        ("policy: on_off\n", "4: policy.on_off.pause_above: missing; add it: gCO2eq/kWh above which"),
        ("policy: treshold\n", "4: policy: 'treshold' is unknown; did you mean threshold?"),
        ("devices: 0\n", "4: devices: must be a whole number at least 1 and at most 1,000, not 0"),
        ("tick: 0s\n", "4: tick: must be a length of time from 1s to 3650d, not '0s'"),
        ("tick: -5m\n", "4: tick: must be a length of time such as 24h, 1h30m, 45s or 2d, not '-5m'"),
        ("finish_by: 2026-12-01\n", "4: finish_by: 2026-12-01 has no time zone; write 2026-12-01T00:00:00Z"),
        ("finish_by: soon\n", "4: finish_by: must be a length of time such as"),
        (
            "clock: {replay: {from: 2024-06-10T06:00:00Z, speed: fast}}\n",
            "4: clock.replay.speed: must be a number above 0 and at most 1,000,000, or auto, not 'fast'",
        ),
        ("clock: {replay: {speed: 3}}\n", "4: clock.replay.from: missing; add it"),
        ("name: 2024\n", "4: name: must be text, not 2024; quote the value if it is intended"),
        ("recipe: [1]\n", "4: recipe: must be a mapping of keys to values, not a list"),
        (
            "recipe: {target_modules: q_proj}\n",
            "4: recipe.target_modules: must be a list of names, or all-linear, not 'q_proj'",
        ),
        (
            "recipe: {target_modules: [q_proj, all-linear]}\n",
            "4: recipe.target_modules: all-linear stands for all modules",
        ),
        ("recipe: {rslora: 1}\n", "4: recipe.rslora: must be true or false, not 1"),
        ("recipe: {rslora: maybe}\n", "4: recipe.rslora: must be true or false, not 'maybe'"),
        ("policy: {planned: {pausing: 0}}\n", "4: policy.planned.pausing: must be true or false, not 0"),
        ("repeats: true\n", "4: repeats: must be a whole number at least 2 and at most 100, not true"),
        ("recipe: {layers: }\n", "4: recipe.layers: must be one of all, upper-half, not nothing"),
        ("policy: {}\n", "4: policy: must have exactly one key, not 0 (none); choose one of: planned, "),
        ("policy: [planned]\n", "4: policy: must be one of planned, threshold, immediate, on_off, "),
        (
            "policy: {on_off: {pause_above: 9}}\n",
            "4: policy.on_off.resume_below: missing; add it: gCO2eq/kWh at or below which they resume, at most ",
        ),
        ("carbon: {provider: static, zone: QQ}\n", "4: carbon.zone: of 'QQ' no yearly average is known; "),
        ("carbon: {provider: uk, zone: GB-99}\n", "4: carbon.zone: uk has no zone 'GB-99'"),
        ("carbon:\n  provider: eia\n  zone: NOPE\n", "6: carbon.zone: eia has no respondent 'NOPE'"),
        ("carbon: {provider: carbon_aware_sdk, zone: eastus}\n", "4: carbon.base_url: missing; carbon_aware_sdk is"),
        ("model: org/other\n", "4: model: given twice, first in line 1; delete one of them"),
        ("recipe: {<<: {epochs: 1}}\n", "4: recipe.'<<': unknown key"),
    ],
)
def test_a_fault_says_where_what_and_what_to_do(text: str, fault: str) -> None:
    found = faults(LEAST + text)
    assert found[0].startswith(f"sweep.yaml:{fault}"), found


@pytest.mark.parametrize(
    "name",
    ["../x", "/abs", "a/../b", "C:\\", "CON", "x" * 300, "🌍", "\u202ea", "a\nb", "$(x)", ";rm", "-rf", "", ".x", " "],
)
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    """It names a folder and the objects of a cluster."""
    assert any(": name: " in fault for fault in faults(LEAST + yaml.safe_dump({"name": name}, allow_unicode=True)))


def test_all_linear_is_a_word_alone_or_in_a_list() -> None:
    words = ("all-linear", "[all-linear]")
    found = [loads(LEAST + f"recipe: {{target_modules: {word}}}\n") for word in words]
    assert [sweep.recipe.target_modules for sweep in found] == [("all-linear",)] * 2
    assert len({sweep.experiments[0].id for sweep in [*found, loads(LEAST)]}) == 2


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot read {path}: No such file or directory; measure the costs with benchmarks/lean_sweep.py"),
        ("{}", "{path} has no key 'packed'; it needs packed, evaluation and measured_on"),
        ('{"packed": [[2, 0.5]]}', "{path} has no key 'evaluation'; it needs packed, evaluation and measured_on"),
        (
            "[1]",
            "{path} is not a results file; it needs packed (pairs of members and share), evaluation and measured_on",
        ),
        *(
            (
                content,
                "{path} is not a results file; it needs packed (pairs of members and share), evaluation and "
                "measured_on",
            )
            for content in ("no", "[" * 100_000, '{"packed": [[Infinity, 0.5]], "evaluation": 0, "measured_on": "x"}')
        ),
        (
            '{"packed": [[2, 50]], "evaluation": 0, "measured_on": "x"}',
            "packed or evaluation in {path} is out of bounds; measure them again",
        ),
    ],
)
def test_a_results_file_that_is_none_is_a_fault_in_its_line(tmp_path: Path, content: str | None, fault: str) -> None:
    (tmp_path / "sweep.yaml").write_text(LEAST.replace("power_w: 425}", "power_w: 425,\n  results: costs.json}"))
    if content is not None:
        (tmp_path / "costs.json").write_text(content)
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "sweep.yaml")
    told = fault.format(path=tmp_path / "costs.json")
    assert str(caught.value) == f"{tmp_path / 'sweep.yaml'}:4: estimates.results: {told}"


@pytest.mark.parametrize("key", ["estimates.results", "model.chat_template"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder", "socket", "large"])
def test_a_file_of_the_spec_that_is_no_regular_file_is_a_fault_at_once(tmp_path: Path, key: str, kind: str) -> None:
    file = tmp_path / "file"
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device":
            file = Path("/dev/zero")
        case "link to a device":
            file.symlink_to("/dev/zero")
        case "folder":
            file.mkdir()
        case "socket":
            os.mknod(file, stat.S_IFSOCK | 0o600)
        case "large":
            with file.open("wb") as made:
                made.truncate(40 << 30)
    spec = (
        LEAST.replace("power_w: 425}", f"power_w: 425, results: {file}}}")
        if key == "estimates.results"
        else LEAST.replace("model: org/model", f"model: {{id: org/model, chat_template: {file}}}")
    )
    assert str(file) in spec
    begun = time.monotonic()
    with pytest.raises(SpecError, match=rf"{key}: cannot read {file}: .*(no regular file|longer than)") as caught:
        loads(spec, tmp_path / "sweep.yaml")
    assert caught.value.exit_code == 2 and time.monotonic() - begun < 1


def test_a_link_to_a_file_of_the_spec_is_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("{{ messages }}")
    (tmp_path / "file").symlink_to("other")
    spec = LEAST.replace("model: org/model", f"model: {{id: org/model, chat_template: {tmp_path / 'file'}}}")
    assert loads(spec).model.chat_template == "{{ messages }}"


@pytest.mark.parametrize("value", [None, True, 7, "odd", [], {}, [[]], {"odd": 1}], ids=repr)
def test_no_word_of_a_library_is_in_a_fault(value: object) -> None:
    """Each key of each section, with a value that many of them do not allow."""
    for name, field in keys(spec_file.SpecFile).items():
        sections = [name] if value is None else [name, *(f"{name}.{key}" for key in _keys_below(field.annotation))]
        for path in sections:
            outer, _, inner = path.partition(".")
            text = yaml.safe_dump({outer: {inner: value} if inner else value})
            try:
                loads(text)
            except SpecError as error:
                for word in ("Input", "Error(", "valid ", "Value", "pydantic", "nothing is unknown"):
                    assert word not in str(error), (path, str(error))


def _keys_below(annotation: object) -> list[str]:
    return [key for section in _sections_in(annotation) for key in keys(section)]


def test_samples_or_steps_are_needed_to_count_by() -> None:
    text = LEAST.replace("{id: org/data, train_samples: 1000}", "org/data")
    assert faults(text) == [
        "sweep.yaml:2: dataset.train_samples: missing; add it to count the steps of an epoch, or set recipe.steps"
    ]
    assert loads(text + "recipe: {steps: 5}\n").total_steps == 5


def test_a_grid_too_large_is_not_expanded() -> None:
    many = ", ".join(f"{i}" for i in range(1, 2001))
    text = LEAST + f"space: {{r: [{many}], alpha: [{many}], lr: 1e-4, dropout: 0}}\n"
    assert "the grid has 4,000,000 points, at most 10,000 are allowed" in faults(text)[0]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "sweep.yaml: the file is empty; `gridsweep init` writes a working file"),
        ("# nothing\n---\n", "sweep.yaml: the file is empty"),
        ("- a\n", "sweep.yaml:1: no `key: value` lines"),
        ("just text", "sweep.yaml:1: no `key: value` lines"),
        ("a: 1\n---\nb: 2\n", "sweep.yaml:2: a second document starts here"),
        ("a: [1, 2\nb: 3\n", "sweep.yaml:2: not YAML: "),
        ("a:\n\tb: 1\n", "sweep.yaml:2: not YAML: the line is indented by a tab; indent with spaces"),
        ("a: b\n\0", "sweep.yaml:2: the character '\\x00' is not text"),
        ("a: \x1b[31m", "sweep.yaml:1: the character '\\x1b' is not text"),
        ("a: b  # c\u2028d\nexecutor: local", "sweep.yaml:1: the character '\\u2028' is not text"),
        ("a: \udc80", "sweep.yaml:1: the character '\\udc80' is not text"),
        ("a: *b\n", "sweep.yaml:1: the alias *b has no anchor above it"),
        ("a: &a [*a]\n", "sweep.yaml:1: the alias *a is inside its own anchor"),
        (BOMB, "sweep.yaml:5: more than 20,000 values, aliases expanded"),
        ("[" * 100_000, "sweep.yaml:1: nested deeper than 32 levels"),
        ("- 1\n" * 200_000, "sweep.yaml:20000: more than 20,000 values"),
        ("? [a]\n: b\n", "sweep.yaml:1: a key must be a plain word"),
        ("x" * (1 << 20) + "y", "sweep.yaml: larger than 1 MiB"),
        ("!!python/object/apply:os.system ['true']", "sweep.yaml:1: no `key: value` lines"),
    ],
)
def test_what_is_no_spec_is_refused_at_once(text: str, fault: str) -> None:
    began = time.process_time()
    assert faults(text)[0].startswith(fault)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a: 1\nb: \xff\n", ":2: the byte 0xff is not valid UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), ":1: the byte 0xff is not valid UTF-8"),
        (b"x" * (1 << 20) + b"y", ": larger than 1 MiB"),
    ],
)
def test_bytes_that_are_no_spec(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}{fault}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no such file; `gridsweep init` writes one"):
        load(tmp_path / "sweep.yaml")
    with pytest.raises(SpecError, match=r"is a folder; name the file in it, such as .*sweep\.yaml"):
        load(tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        load(tmp_path / ("x" * 300))
    with pytest.raises(SpecError, match="cannot be read"):
        load("nul\0.yaml")


def test_a_message_shows_a_long_or_odd_value_short() -> None:
    [fault] = faults(LEAST + f'executor: "{"x" * 500}\\e[31m"\n')
    assert len(fault) < 200 and "\x1b" not in fault


def test_thousands_of_faults_are_not_all_listed() -> None:
    found = faults(LEAST + "".join(f"k{i}: 1\n" for i in range(500)))
    assert len(found) == 101 and found[-1] == "sweep.yaml: and 400 more; correct these first"


# Any change of a file gives a sweep or a SpecError, nothing else

ODD = [
    "", "~", "true", "NO", "-1", "0", "1e-4", "1e999", ".nan", "9" * 400, "2d", "0s", "x", "[]", "{}", "[[[[",
    "{a: 1}", "*a", "&a b", "!!int 3", "'", '"\\0"', "- a", ": ", "\t", "\0", "\ud800", "é", "🌍", "|\n",
    "? ", "<<: *a", "2026-12-01", "9999-12-31T23:59:59-12:00", "./x", "~nobody/x", "../" * 600, "%", "@", "`",
    "---\n", "#",
]  # fmt: skip
SOURCES = [path.read_text() for path in EXAMPLES] + [template(), LEAST + SPACE, MANY]


def sweep_or_error(text: str) -> None:
    try:
        assert isinstance(loads(text), Sweep)
    except SpecError as error:
        assert str(error)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SOURCES), st.data())
def test_cut_copied_or_overwritten_text_is_a_sweep_or_an_error(source: str, data: st.DataObject) -> None:
    text = source
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(text)))
        j = min(len(text), i + data.draw(st.integers(0, 30)))
        put = data.draw(st.one_of(st.sampled_from([*ODD, text[i : i + 200]]), st.text(max_size=5)))
        text = text[:i] + put + text[j:]
    sweep_or_error(text)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SOURCES), st.data())
def test_any_value_in_place_of_another_is_a_sweep_or_an_error(source: str, data: st.DataObject) -> None:
    tree = yaml.load(source.replace("!!python/object:os.system", ""), Loader=yaml.BaseLoader)
    holder, key = data.draw(st.sampled_from(list(places(tree))))
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(ODD), st.text(max_size=8))
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
    holder[key] = data.draw(values)
    sweep_or_error(yaml.safe_dump(tree, allow_unicode=True))


def places(tree: Any) -> Any:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, dict | list):
            yield from places(value)


@settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
@example("a: &a\n  <<: *a")
@example("{" * 50 + "}" * 50)
def test_any_text_is_a_sweep_or_an_error(text: str) -> None:
    sweep_or_error(text)


# The schema, the examples, the reference


def in_schema(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(json_schema())
    return bool(validator.is_valid(yaml.safe_load(text)))


DATA = "model: a/b\nrecipe: {steps: 8}\nestimates: {duration: 1h, power_w: 100}\ndataset: "


def test_the_keys_of_the_data(tmp_path: Path) -> None:
    for name in ("d.CSV.gz", "v.ndjson"):
        (tmp_path / name).touch()
    keys = "{id: d.CSV.gz, validation: v.ndjson, train_on: last_answer, skip_at_most: 0.2, columns: {messages: turns}}"
    wanted = Dataset(
        str(tmp_path / "d.CSV.gz"), None, "train", None, None, Columns(messages="turns"), str(tmp_path / "v.ndjson"),
        "last_answer", 0.2,
    )  # fmt: skip
    assert loads(DATA + keys, tmp_path / "sweep.yaml").dataset == wanted
    for validation in ("test", "{split: test}"):
        assert loads(DATA + f"{{id: a/b, validation: {validation}}}").dataset.validation == "test"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("{id: a/b, columns: {prompt: q}}", "dataset.columns: incomplete; name messages, text, or prompt and response"),
        ("{id: a/b, columns: {messages: m, prompt: q}}", "dataset.columns: messages and prompt exclude each other"),
        ("{id: a/b, columns: {text: m, system: q}}", "dataset.columns: system and text exclude each other"),
        ("{id: a/b, columns: {answer: m}}", "dataset.columns.answer: unknown key"),
        ("{id: a/b, columns: {prompt: p, response: p}}", "dataset.columns.response: 'p' is already the prompt; name"),
        (
            "{id: a/b, columns: {prompt: p, response: r, system: p}}",
            "dataset.columns.system: 'p' is already the prompt",
        ),
        ("{id: a/b, columns: {messages: m, system: m}}", "dataset.columns.messages: 'm' is already the system; name"),
        ("{id: a/b, validation: ./v.csv}", "dataset.validation: there is no file or folder './v.csv'"),
        ("{id: a/b, validation: {split: a, of: b}}", "dataset.validation: must be the name of a split"),
        ("{id: a/b, skip_at_most: 1}", "dataset.skip_at_most: must be a number at least 0 and below 1"),
        ("{id: a/b, train_on: all}", "dataset.train_on: 'all' is unknown; choose one of: all_answers, last_answer"),
    ],
)
def test_keys_of_the_data_that_are_not_understood(keys: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        loads(DATA + keys)
    assert message in str(error.value)


def test_the_schema_is_one() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:gridsweep:sweep.yaml:1"


def test_every_key_of_the_schema_has_a_description() -> None:
    schema = json_schema()

    def described(key: dict[str, Any]) -> bool:
        return "description" in key or described(schema["$defs"][key["$ref"].removeprefix("#/$defs/")])

    def properties(part: Any) -> Any:
        if isinstance(part, dict):
            yield from part.get("properties", {}).values()
            for inner in part.values():
                yield from properties(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from properties(inner)

    assert all(map(described, properties(schema)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_sweep_and_in_the_schema(path: Path) -> None:
    sweep, text = load(path), path.read_text()
    assert sweep.name == path.stem
    assert tuple(e.params for e in sweep.experiments) == designs.published()
    assert sweep.tiers == designs.PUBLISHED_TIERS
    assert [e.tier for e in sweep.experiments] == ["tier1"] * 8 + ["tier2"] * 4 + ["tier3"] * 9
    assert in_schema(text)
    head = [line for line in text.splitlines()[:6] if line.startswith("#")]
    assert len(head) >= 3 and any(f"gridsweep run examples/{path.name}" in line for line in head)


def test_an_estimate_may_be_said_to_be_a_guess() -> None:
    """At its default the key changes nothing: ids stay, and a sweep journaled before there was the key is read."""
    plain, guess = loads(LEAST), loads(LEAST.replace("power_w: 425", "power_w: 425, guess: true"))
    assert not plain.estimates.guess and guess.estimates.guess
    assert [e.id for e in plain.experiments] == [e.id for e in guess.experiments]
    assert loads(LEAST.replace("power_w: 425", "power_w: 425, guess: false")) == plain
    old = json.loads(codec.dumps(plain))
    assert old["estimates"].pop("guess") is False
    assert codec.loads(Sweep, json.dumps(old)) == plain
    with pytest.raises(SpecError, match=r"estimates\.guess"):
        amendments(plain, guess)
    assert any("estimates.guess" in line for line in faults(LEAST.replace("power_w: 425", "power_w: 425, guess: 2")))


def test_limits_of_workers_here_are_read_and_may_change_between_two_runs() -> None:
    plain = loads(LEAST)
    tight = loads(LEAST + "executor: {local: {memory_gb: 32, file_gb: 0.5, open_files: 1024}}\n")
    assert tight.executor.local == Limits(32.0, 0.5, 1024) and plain.executor.local == Limits()
    assert amendments(plain, tight)[0] == "executor.local.memory_gb: None before, 32.0 now"
    assert any("open_files" in line for line in faults(LEAST + "executor: {local: {open_files: 3}}\n"))


def test_the_published_example_is_the_published_recipe() -> None:
    sweep = load(PROJECT / "examples" / "published.yaml")
    assert sweep.model == Model("Qwen/Qwen2.5-Coder-7B-Instruct")
    assert sweep.dataset == Dataset("nvidia/HelpSteer2", None, "train", 4000, 1000)
    assert sweep.recipe == Recipe()
    assert sweep.total_steps == 1500
    assert [d.power_w for d in sweep.devices] == [425.0, 425.0]
    assert sweep.estimates.duration == timedelta(minutes=90)
    assert sweep.policy.name == "threshold" and sweep.finish_by is None
    assert [e.reason for e in sweep.experiments] == [e.reason for e in loads(LEAST).experiments]


def test_the_template_works_without_a_network() -> None:
    sweep = loads(template())
    assert sweep.model.id == "tiny-qwen2" and sweep.dataset.id == "stdlib"
    assert len(sweep.experiments) == 8 and sweep.replay is not None
    assert in_schema(template())


@pytest.mark.parametrize(
    "text",
    [
        "model: {id: a/b, revision: main}\ndataset: c/d\n",
        SPACE + "design: one_factor\n",
        SPACE + "design: {sample: {n: 3, seed: 1}}\n",
        'space: {r: 16, alpha: "32", lr: 1e-4, dropout: 0}\n',
        "policy: {on_off: {pause_above: 250, resume_below: 200}}\n",
        "devices: [{name: gpu0, speed: 2}]\n",
        'rules: [{tier: tier1, when: {r: 16, lr: "<= 1e-5"}}, {tier: tier2}]\n',
        'finish_by: 51.5h\nclock: {replay: {from: "2024-06-10T06:00:00Z", speed: 360}}\n',
    ],
)
def test_the_schema_takes_short_and_long_forms(text: str) -> None:
    kept = [line for line in LEAST.splitlines(keepends=True) if line.split(":")[0] + ":" not in text]
    whole = "".join(kept) + text
    loads(whole + ("recipe: {steps: 1}\n" if "dataset" in text else ""))
    assert in_schema(whole)


@pytest.mark.parametrize("text", ["modle: x\n", "devices: 0\n", "tick: 30\n", "design: {grid: {}, sample: {n: 1}}\n"])
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert faults(LEAST + text) and not in_schema(LEAST + text)


def test_the_reference_names_every_key() -> None:
    reference = (PROJECT / "docs" / "spec.md").read_text()
    sections = [
        kind
        for module in (spec_file, study)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Section)
    ]
    named = {key for section in sections for key in keys(section)}
    assert [key for key in sorted(named) if f"`{key}`" not in reference] == []


def test_the_reader_and_the_policies_know_the_same_policies() -> None:
    assert set(spec_file.PolicySection.model_fields) == set(OPTIONS)
    for name, options in OPTIONS.items():
        field = spec_file.PolicySection.model_fields[name]
        section = next(part for part in field.annotation.__args__ if part is not type(None))  # type: ignore[union-attr]
        assert set(keys(section)) == set(options)


def test_a_proxy_is_another_base_with_other_ids():
    full, packed = loads(LEAST), loads(LEAST + "proxy: {base: 4-bit}\n")
    assert {e.base for e in full.experiments} == {"full"} and {e.base for e in packed.experiments} == {"4-bit"}
    assert not {e.id for e in full.experiments} & {e.id for e in packed.experiments}
    assert "4-bit" in faults(LEAST + "proxy: {base: 2-bit}\n")[-1]
