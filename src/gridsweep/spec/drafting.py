"""A sized sweep as the text of a `sweep.yaml`, each number with where it comes from, and what nothing tells."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridsweep.spec.expansion import BUNDLED_TRACES, absolute
from gridsweep.sweep.experiments import is_local, number
from gridsweep.sweep.rungs import steps
from gridsweep.sweep.sizing import CORE_W, FLOPS, STARTING_S, Budget, Sizing, width_power
from gridsweep.sweep.surveys import Survey
from gridsweep.sweep.sweep import CarbonSource

PLAIN = re.compile(r"[A-Za-z][\w./-]*")
WIDTH = 118


@dataclass(frozen=True, slots=True)
class Choice:
    """A key of the spec with the value that was chosen, the reason, and where the reason's figures come from."""

    key: str
    value: str
    why: str
    source: str


def local(id: str) -> Path | None:
    """Return the absolute path that an id of a model, a dataset or a trace names; None for other ids."""
    path = Path(id).expanduser()
    there = is_local(id) or path.is_dir()
    return absolute(id, Path.cwd()) if there else None


def beside(id: str, file: Path) -> str:
    """Return an id as the spec `file` writes it: paths relative to its folder."""
    path = local(id)
    if path is None:
        return id
    relative = os.path.relpath(path, file.absolute().parent)
    return relative if relative.startswith("..") else f"./{relative}"


def choices(
    sizing: Sizing, survey: Survey, budget: Budget, carbon: CarbonSource, model: str, dataset: str
) -> Iterator[Choice]:
    """Yield every key of the spec in its order."""
    assert survey.model and survey.data and survey.device
    data, made, extent = survey.data, survey.model, sizing.extent
    yield Choice("model", _quoted(model), f"{made.architecture}, {made.parameters:,} parameters", "its configuration")
    held = {} if data.own and dataset != "stdlib" else {"validation_samples": sizing.validation}
    pairs = {"id": _quoted(dataset), "train_samples": sizing.train, **held}
    part = "" if extent.share == 1 else f"; {extent.share} of the training samples, because of the budget"
    own = "its own validation samples" if data.own else f"{sizing.validation} held out to validate"
    yield Choice("dataset", _flow(pairs), f"{own}{part}", data.counted)
    yield from _recipe(sizing, survey)
    yield from _space(sizing, survey)
    yield from _course(sizing, survey, budget)
    yield Choice("carbon", _flow(_carbon(carbon)), "the grid that the plan follows", "--provider, --zone, --trace")
    device, ways = survey.device, f"{sizing.devices} x {survey.device.name} ({survey.device.kind})"
    yield Choice("devices", str(sizing.devices), ways, "this machine")
    if sizing.guess:
        why = f"a guess: {sizing.tokens_per_s:,.0f} tokens/s from {FLOPS[device.kind]:.2g} operations/s, 4 a weight"
        from_ = "an assumption; no measurement of this model here"
    else:
        why = f"{sizing.tokens_per_s:,.0f} tokens/s of one experiment alone"
        from_ = f"gridsweep doctor --train, {device.measured_at}"
    estimates = {"duration": _span(sizing.cost.experiment_s), "power_w": number(round(sizing.power_w, 1))}
    yield Choice("estimates", _flow(estimates | ({"guess": "true"} if sizing.guess else {})), why, from_)


def _recipe(sizing: Sizing, survey: Survey) -> Iterator[Choice]:
    assert survey.model and survey.data
    data, extent = survey.data, sizing.extent
    less = extent.epochs < sizing.wanted.epochs
    why = f"{sizing.total_steps} steps; " + (
        "fewer because of the budget" if less else "the less data, the more passes"
    )
    yield Choice("recipe.epochs", str(extent.epochs), why, "rule of thumb")
    at_once = min(2, sizing.batch)
    yield Choice("recipe.batch_size", str(at_once), "", "")
    why = f"{sizing.batch} samples a step: LoRA wants small batches, and little data many steps"
    yield Choice("recipe.accumulation", str(sizing.batch // at_once), why, "LoRA Without Regret (2025)")
    why = f"cuts {data.longer(sizing.length):.0%} of the samples; half have up to {data.lengths[50]} tokens"
    yield Choice("recipe.max_length", str(sizing.length), why, "99th percentile of the encoded samples")
    yield Choice(
        "recipe.checkpoint_every", str(max(1, min(50, sizing.total_steps // 10))), "at most a tenth is lost", ""
    )
    if survey.model.target_modules == ("all-linear",):
        yield Choice("recipe.target_modules", "all-linear", "the model has other names", "its configuration")


def _space(sizing: Sizing, survey: Survey) -> Iterator[Choice]:
    assert survey.model and survey.data
    held = f"{survey.model.per_rank * max(sizing.ranks):,} weights at rank {max(sizing.ranks)}"
    learned = f"{sizing.train * survey.data.cut_to(sizing.length) * survey.data.learned:,.0f} learned tokens"
    yield Choice(
        "space.r", _listed(sizing.ranks), f"{held} for about {learned}", "shapes of the model, tokens of the data"
    )
    why = "fixed: scaled by alpha / r, the best learning rate hardly depends on the rank"
    yield Choice("space.alpha", "[32]", why, "LoRA Without Regret (2025)")
    why = f"matters most; around 5e-4 x (2000 / {survey.model.hidden}) ^ {width_power(survey.model.architecture):g}"
    yield Choice("space.lr", _listed(sizing.rates), why, "LoRA Without Regret (2025), hidden width of the model")
    yield Choice(
        "space.dropout", _listed(sizing.dropouts), "matters least: it is the first to be fixed", "rule of thumb"
    )
    yield Choice("design", "grid", f"{sizing.extent.experiments} experiments", "the space")


def _course(sizing: Sizing, survey: Survey, budget: Budget) -> Iterator[Choice]:
    rungs = sizing.rungs
    if rungs is None:
        yield Choice(
            "rungs",
            "none",
            "nothing is won by stopping early: few experiments, or trainings shorter than a restart",
            "docs/training.md",
        )
    else:
        at = ", ".join(map(str, steps(rungs, sizing.total_steps)))
        why = f"after steps {at} of {sizing.total_steps}, {', '.join(map(str, rungs.keep))} experiments are kept"
        yield Choice("rungs", "default", why, "docs/training.md")
    if sizing.extent.seeds > 1:
        yield Choice(
            "repeats", str(sizing.extent.seeds), "the best three again with more seeds", "the budget allows it"
        )
    room = f"{sizing.fits:,} adapters of rank {max(sizing.ranks)} fit" if sizing.fits else "no memory model"
    assert survey.device
    memory = f"{survey.device.memory / 1e9:.1f} GB of memory and the memory model"
    yield Choice("pack", str(sizing.pack), room, memory)
    day = max(24.0, 1.25 * sizing.cost.hours)
    delay = _span(3600 * (day if budget.hours is None else min(day, budget.hours)))
    tier = [_flow({"name": "all", "threshold": "p40", "max_delay": delay})]
    yield Choice("tiers", f"[{tier[0]}]", "one tier: nothing says which experiments are more urgent", "")
    if budget.hours is not None:
        yield Choice("finish_by", _span(3600 * budget.hours), "the whole sweep", "--hours")
        if budget.hours < 12:
            yield Choice("tick", "5m", "a short sweep is planned in short steps", "--hours")


def unknown(sizing: Sizing, survey: Survey, budget: Budget, spec: str, synthetic: str) -> tuple[str, ...]:
    """Return what is not known, each with what would tell it."""
    assert survey.model and survey.device
    found = []
    if sizing.guess:
        found.append(
            f"duration: a step's time was not measured here and may be off by a factor of five; `gridsweep doctor "
            f"--train {spec}` measures it in a minute, after which recommend --overwrite uses it"
        )
    else:
        found.append("duration: only passes were measured; loading and scoring are assumptions")
    found.append(
        f"start: {STARTING_S:.0f} s for a worker's libraries are an assumption, and packs are counted as saving nothing"
    )
    if survey.device.power_w is None:
        kind = "of a busy core" if sizing.power_w == CORE_W else "of the GPU"
        found.append(f"power: {sizing.power_w:g} W {kind} are stated, not measured; correct estimates.power_w")
    else:
        found.append("power: the GPU's limit is stated; its mean draw is lower")
    if synthetic:
        found.append(f"carbon: {synthetic}; name your grid with --provider and --zone")
    found.append(
        "learning rate: the range is from other models; where the best lies on its edge, the report says so, and "
        "`propose: edge` tries a point beyond"
    )
    found.append("quality: experiments are ranked by validation loss, which is not the quality of answers")
    if budget.hours is not None or budget.grams is not None:
        found.append(
            "budget: the sweep is sized by it once, before it starts; nothing stops a running sweep that exceeds it"
        )
    return (*found, *survey.unseen)


def text(made: list[Choice], head: list[str]) -> str:
    """Return the spec; each key's reason and source stand in a comment above it."""
    lines, section = [f"# {part}" for line in head for part in _wrapped(line)], ""
    for choice in made:
        owner, dot, key = choice.key.partition(".")
        if dot and owner != section:
            lines += ["", f"{owner}:"]
        elif not dot:
            lines.append("")
        section, indent = (owner, "  ") if dot else ("", "")
        said = f"{choice.why} [{choice.source}]" if choice.source else choice.why
        lines += [f"{indent}# {line}" for line in _wrapped(said)] if said else []
        lines.append(f"{indent}{key or owner}: {choice.value}")
    return "\n".join(lines) + "\n"


def _wrapped(said: str) -> list[str]:
    return textwrap.wrap(" ".join(said.split()), WIDTH - 4, break_long_words=False, break_on_hyphens=False)


def _carbon(carbon: CarbonSource) -> dict[str, str]:
    given = {"provider": carbon.provider}
    if carbon.provider != "trace":
        return given | {"zone": _quoted(carbon.zone)}
    file = carbon.file or BUNDLED_TRACES[0]
    return given | {"file": _quoted(file)} | ({"zone": _quoted(carbon.zone)} if carbon.zone else {})


def _quoted(value: str) -> str:
    """Return a text as YAML: plain where that is safe, else in double quotes."""
    return value if PLAIN.fullmatch(value) else json.dumps(value)


def _flow(parts: dict[str, object] | dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"


def _listed(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(map(number, values)) + "]"


def _span(seconds: float) -> str:
    """Return a length of time of the spec: whole seconds below ten minutes, else whole minutes, rounded up."""
    whole = max(1, -int(-seconds // 1))
    return f"{whole}s" if whole < 600 or (whole % 60 and whole < 1200) else f"{-(-whole // 60)}m"
