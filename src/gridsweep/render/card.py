"""A Hugging Face model card for one experiment's adapter."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

import yaml

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Report
from gridsweep.carbon.readings import titled
from gridsweep.render import wording
from gridsweep.render.figures import energy, grams, hours, loss, percent
from gridsweep.render.markdown import escape
from gridsweep.sweep.experiments import is_local, number

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def render(report: Report, row: Row) -> str:
    """Return the model card: hyperparameters, result, how to load it, emissions and caveats."""
    front = yaml.safe_dump(_front(report, row), sort_keys=False, allow_unicode=True, width=10_000)
    sections = [
        f"# {row.experiment}",
        f"A LoRA adapter for {escape(_base(report))}, one of {len(report.rows)} experiments of the sweep "
        f"{escape(report.sweep)}, {_standing(report, row)}.",
        "## Hyperparameters",
        f"| r | alpha | learning rate | dropout |\n| ---: | ---: | ---: | ---: |\n"
        f"| {row.r} | {number(row.alpha)} | {number(row.lr)} | {number(row.dropout)} |",
        *([f"With{escape(wording.also(row)).removeprefix(',')}."] if row.more else []),
        f"Trained on {escape(_dataset(report))}.",
        "## Result",
        _result(report, row),
        "## How to load it",
        _loading(report),
        "## Emissions",
        _emitted(report, row),
        "## Caveats",
        "\n".join(f"- {escape(note)}" for note in report.notes),
    ]
    if report.facts:
        facts = "\n".join(f"| {escape(k)} | {escape(v)} |" for k, v in sorted(report.facts.items()))
        sections += ["## Environment", f"| item | value |\n| --- | --- |\n{facts}"]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front(report: Report, row: Row) -> dict[str, object]:
    found: dict[str, object] = {
        "base_model": _base(report),
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "gridsweep"],
    }
    if HUB_ID.fullmatch(report.dataset):
        found["datasets"] = [report.dataset]
    emissions: dict[str, object] = {} if _unknown(row) else {"emissions": float(row.emissions_g)}
    found["co2_eq_emissions"] = emissions | {
        "source": _source(report),
        "training_type": "fine-tuning",
        "geographical_location": report.zone,
        "hardware_used": report.facts.get("device", row.device or "unknown"),
    }
    return found


def _source(report: Report) -> str:
    """Return the tool, the energy sources with their shares, and the grid data."""
    grid = titled(report.source, report.quality) if report.source else "not read"
    return f"{_tool()}; energy {_energy_source(report)}; grid {grid}, zone {report.zone}"


def _tool() -> str:
    try:
        return f"gridsweep {version('gridsweep')}"
    except PackageNotFoundError:
        return "gridsweep"


def _energy_source(report: Report) -> str:
    total = sum(report.energy_sources.values())
    if not total:
        return "not measured"
    shares = sorted(report.energy_sources.items(), key=lambda item: -item[1])
    return ", ".join(f"{percent(kwh / total)} {name}" for name, kwh in shares)


def _base(report: Report) -> str:
    """Return the base model's id; of a local folder, only its name, so that no local path is published."""
    return _last(report.model)


def _dataset(report: Report) -> str:
    return _last(report.dataset)


def _last(id: str) -> str:
    return PurePath(id).name if is_local(id) else id


def _standing(report: Report, row: Row) -> str:
    if row.place is None:
        return f"which is {escape(wording.outcome(row)) if row.reason else row.status}"
    proxy = ", trained over the base in 4 bits (NF4), a proxy for the full base" if row.base == "4-bit" else ""
    tied = "" if row.place == 1 or not row.tied else " (statistically tied with the first)"
    return f"place {row.place} by validation loss{tied}{proxy}"


def _result(report: Report, row: Row) -> str:
    if row.loss is None:
        return "There is no validation loss."
    text = f"Validation loss **{loss(row.loss)}** on the response tokens"
    if row.initial_loss is not None:
        text += f", {loss(row.initial_loss)} before training"
    if told := wording.seeds(row):
        text += f" ({told})"
    if told := wording.against_baseline(report, row):
        text += f"; {told}"
    if row.seeds > 1:
        return f"{text}. This adapter comes from the first of these seeds."
    noise = report.loss_noise
    if noise is not None:
        return f"{text}. Another seed changes it by up to {number(noise)}; one seed was trained."
    return f"{text}. One seed was trained; the variation between seeds was not measured."


def _loading(report: Report) -> str:
    """Return a code block that loads the adapter; quoted names cannot end their strings."""
    base, bundled = f"{_base(report)!r}  # the base model", ""
    if is_local(report.model):
        base += "'s folder"
    elif "/" not in report.model:  # perhaps a bundled model, which the Hugging Face hub does not have
        bundled = "\nfrom gridsweep.sweep.sweep import Model\nfrom gridsweep.train.model import resolve"
        base = f"resolve(Model({report.model!r}))  # the folder of the base model"
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{bundled}

base = {base}
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "adapter")
tokenizer = AutoTokenizer.from_pretrained(base)
```"""


def _emitted(report: Report, row: Row) -> str:
    if row.mean_intensity is None and row.energy_kwh:
        own = f"This experiment used {energy(row.energy_kwh)} in hours whose carbon intensity is unknown."
    else:
        bound = "at least " if _unknown(row) else ""
        own = f"This experiment emitted {bound}{grams(row.emissions_g)} CO2eq with {energy(row.energy_kwh)}"
        own += f" at {row.mean_intensity:.0f} gCO2eq/kWh on average" if row.mean_intensity is not None else ""
        own += f", after waiting {hours(row.wait_h)} for the grid." if row.wait_h else "."
    whole = (
        f"The whole sweep that found this adapter emitted {grams(report.emissions_g)} CO2eq "
        f"with {energy(report.energy_kwh)}: {wording.counts(report)}."
    )
    saving = wording.saving(report)
    if saving.kind in ("less", "more"):
        whole += f" That is {saving.figure} than running at once, as estimated by a replay on the same devices."
    return f"{own}\n\n{whole}\n\nCounted by {escape(_source(report))}."


def _unknown(row: Row) -> bool:
    return wording.partly_unknown(row) or (row.mean_intensity is None and row.energy_kwh > 0)
