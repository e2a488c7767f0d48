"""Expansion of a valid spec's sections into a `Sweep`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal  # values of axes

from gridsweep.errors import SpecError
from gridsweep.records.bounded import MEBIBYTE, UnfitError, whole
from gridsweep.spec.axes import MOST_POINTS
from gridsweep.spec.clusters import executor_of
from gridsweep.spec.file import (
    CarbonSection,
    DeviceSection,
    EstimatesSection,
    PolicySection,
    RuleSection,
    SpecFile,
    TierSection,
)
from gridsweep.spec.point_files import point_rows
from gridsweep.spec.rungs import rungs_of
from gridsweep.spec.space import SpaceSection
from gridsweep.spec.study import DatasetSection, DesignSection, ModelSection, Plain, SampleSection
from gridsweep.spec.text_files import file_text
from gridsweep.sweep import designs
from gridsweep.sweep.axes import AXES, recipe_of, total_steps
from gridsweep.sweep.experiments import PARAMS, Base, Columns, Dataset, Experiment, LoraParams, Model, Recipe, is_local
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.rungs import Proposals, Repeats
from gridsweep.sweep.space import Range, Space, Values, point
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import CarbonSource, Estimates, PolicyChoice, Replay, Sweep
from gridsweep.sweep.tiers import Condition, Rule, Tier

BUNDLED_TRACES = ("solar-valley",)
TEMPLATE, RESULTS = MEBIBYTE, 16 * MEBIBYTE
"""The longest chat template and the longest results file that are read, bytes."""


def sweep_of(file: SpecFile, name: str, folder: Path) -> Sweep:
    """Return the sweep that a file without faults describes; its paths are relative to `folder`."""
    model = _model(file.model, folder)
    dataset = _dataset(file.dataset, folder)
    recipe = Recipe(**dict(file.recipe))
    base: Base = "4-bit" if file.proxy else "full"
    rules = rules_of(file.rules, file.tiers)
    usual, experiments = total_steps(dataset, recipe), []
    for params in points_of(design_of(file.design, file.space), file.space, rules, folder):
        rule = designs.assign(params, rules)
        assert rule is not None, "a file without faults sends every experiment to a tier"
        seed = int(dict(params.more).get("seed", recipe.seed))  # type: ignore[arg-type]  # an axis of whole numbers
        id = experiment_id(params, seed, model, dataset, recipe, base)
        experiments.append(Experiment(id, params, seed, rule.tier, rule.reason, base=base))
    recipes = {recipe, *(recipe_of(recipe, e.params) for e in experiments)}
    fewest = min(total_steps(dataset, own) for own in recipes)
    warmup = round(max(own.warmup for own in recipes) * fewest)
    rungs = rungs_of(file.rungs, len(experiments), experiments[0].id, fewest, warmup)
    return Sweep(
        name=file.name or name,
        model=model,
        dataset=dataset,
        recipe=recipe,
        experiments=tuple(experiments),
        tiers=tiers_of(file.tiers),
        estimates=estimates_of(file.estimates, folder),
        devices=tuple(_device(device, file.estimates.power_w) for device in file.devices),
        total_steps=usual,
        carbon=carbon_of(file.carbon, folder),
        policy=_policy(file.policy),
        executor=executor_of(file.executor),
        tick=file.tick,
        min_wait=file.min_wait,
        finish_by=file.finish_by,
        replay=Replay(file.clock.replay.start, file.clock.replay.speed) if file.clock else None,
        baseline=experiments[0].id,
        rungs=rungs,
        repeats=Repeats(**dict(file.repeats)) if file.repeats else None,
        propose=Proposals(**dict(file.propose)) if file.propose else None,
        pack=file.pack or (len(experiments) if rungs else 1),
        env=tuple(sorted(file.env.items())),
    )


def estimates_of(section: EstimatesSection, folder: Path) -> Estimates:
    """Return the estimates, with the measurements of a results file.

    Raise `SpecError` if the file is missing, lacks a key or holds values out of bounds.
    """
    made = Estimates(section.duration, section.power_w, section.loss_noise, guess=section.guess)
    if section.results is None:
        return made
    path = absolute(section.results, folder)
    try:
        told = json.loads(whole(path, RESULTS, follow=True))
        packed = tuple((int(members), float(share)) for members, share in told["packed"])
        evaluation, where = float(told["evaluation"]), str(told["measured_on"])
    except OSError as error:
        raise SpecError(
            f"cannot read {path}: {error.strerror or error}; measure the costs with benchmarks/lean_sweep.py"
        ) from None
    except UnfitError as error:
        raise SpecError(f"cannot read {path}: {error}; correct the path") from None
    except KeyError as error:
        raise SpecError(f"{path} has no key {error}; it needs packed, evaluation and measured_on") from None
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise SpecError(
            f"{path} is not a results file; it needs packed (pairs of members and share), evaluation and measured_on"
        ) from None
    if not packed or any(members < 1 or not 0 < share <= 10 for members, share in packed) or not 0 <= evaluation < 1:
        raise SpecError(f"packed or evaluation in {path} is out of bounds; measure them again")
    return replace(made, packed=packed, evaluation=evaluation, measured=f"{where} ({path.name})")


def absolute(path: str, folder: Path) -> Path:
    """Return `path`, relative to `folder`, as an absolute path; links are not followed, so its last name stays."""
    return Path(os.path.normpath(folder / Path(path).expanduser()))


def space_of(section: SpaceSection) -> Space:
    """Return the space; an axis of LoRA that is not named has the value of the published baseline."""
    usual = designs.published()[0]

    def values(key: str) -> Values:
        given: tuple[Any, ...] | None = getattr(section, key)
        if given is None:
            return (usual.value(key),)
        return given[0] if isinstance(given[0], Range) else given

    more = tuple((key, values(key)) for key in AXES if getattr(section, key) is not None)
    exclude = tuple(tuple(Condition(key, *test) for key, test in each.items()) for each in section.exclude)
    return Space(values("r"), values("alpha"), values("lr"), values("dropout"), more, exclude)


def design_of(section: DesignSection | None, space: SpaceSection | None) -> DesignSection:
    """Return the design given, else the grid of the space given, else the published design."""
    if section is not None:
        return section
    return DesignSection(grid=Plain()) if space is not None else DesignSection(published=Plain())


def baseline_of(design: DesignSection, space: Space) -> LoraParams:
    """Return the baseline of a one-factor design; a missing key defaults to the first value of its axis."""
    given = design.one_factor.baseline.model_dump(exclude_none=True) if design.one_factor else {}
    first = {key: values[0] for key, values in zip(space.keys, space.listed, strict=True)}
    return space.point({**first, **given})


def candidates_of(design: DesignSection, space: SpaceSection | None, folder: Path) -> tuple[LoraParams, ...]:
    """Return the points that a design chooses from: the whole grid for a sample of it, else the points it trains.

    Raise `ValueError` for a space that has no such points.
    """
    if design.points is not None:
        return points_given(design.points, folder)
    if design.published is not None or space is None:
        return designs.published()
    found = space_of(space)
    if design.one_factor is not None:
        return designs.one_factor(found, baseline_of(design, found))
    if design.sample is not None and (method := method_of(design.sample, found)) != "tiers":
        return designs.drawn(found, design.sample.n, design.sample.seed, method)
    return designs.grid(found)


def method_of(section: SampleSection, space: Space) -> Literal["tiers", "sobol", "random"]:
    """Return how a sample is drawn."""
    usual: Literal["sobol", "tiers"] = "sobol" if space.ranges else "tiers"
    return section.method or usual  # type: ignore[return-value]  # one of these words


def points_of(
    design: DesignSection, space: SpaceSection | None, rules: Sequence[Rule], folder: Path
) -> tuple[LoraParams, ...]:
    """Return the points that are trained."""
    if design.sample is None or space is None or method_of(design.sample, space_of(space)) != "tiers":
        return candidates_of(design, space, folder)

    def tier_of(params: LoraParams) -> str:
        rule = designs.assign(params, rules)
        return rule.tier if rule else ""

    return designs.sample(space_of(space), design.sample.n, design.sample.seed, tier_of)


def points_given(given: tuple[dict[str, Any], ...] | str, folder: Path) -> tuple[LoraParams, ...]:
    """Return the points of a list or a CSV file; an axis of LoRA that is not named has the published baseline's value.

    Raise `ValueError` for a file that cannot be read, for too many points, points that are there twice, or different
    axes.
    """
    rows = point_rows(absolute(given, folder)) if isinstance(given, str) else given
    if len(rows) > MOST_POINTS:
        raise ValueError(f"has {len(rows):,} points, at most {MOST_POINTS:,} are allowed; give fewer")
    usual = {key: designs.published()[0].value(key) for key in PARAMS}
    points = [point({**usual, **row}) for row in rows]
    found: dict[LoraParams, int] = {}
    for n, params in enumerate(points):
        if params in found:
            raise ValueError(f"[{n}] is the same point as [{found[params]}]; delete one")
        if params.keys != points[0].keys:
            raise ValueError(f"[{n}] has the axes {', '.join(params.keys)}, the first {', '.join(points[0].keys)}")
        found[params] = n
    return tuple(found)


def tiers_of(sections: Sequence[TierSection] | None) -> tuple[Tier, ...]:
    """Return the tiers, ranked by their order; the published three by default."""
    if sections is None:
        return designs.PUBLISHED_TIERS
    return tuple(Tier(s.name, s.threshold, s.max_delay, rank) for rank, s in enumerate(sections, 1))


def rules_of(sections: Sequence[RuleSection] | None, tiers: Sequence[TierSection] | None) -> tuple[Rule, ...]:
    """Return the rules; by default the published ones, or the only tier for every experiment."""
    if sections is not None:
        return tuple(map(_rule, sections))
    if tiers is not None and len(tiers) == 1:
        return (Rule(tiers[0].name),)
    return designs.PUBLISHED_RULES


def _dataset(section: DatasetSection, folder: Path) -> Dataset:
    columns = Columns(**dict(section.columns)) if section.columns else None
    validation = _id(section.validation, folder) if section.validation else None
    found = {"id": _id(section.id, folder), "columns": columns, "validation": validation}
    return Dataset(**{**dict(section), **found})


def _model(section: ModelSection, folder: Path) -> Model:
    """Return the model, with the text of its template: the file may change later, or be missing where workers run."""
    template = None
    if section.chat_template is not None:
        template = template_text(absolute(section.chat_template, folder))
    return Model(_id(section.id, folder), section.revision, template)


def template_text(path: Path) -> str:
    """Return the text of a chat template's file. Raise `SpecError` if it cannot be read or is empty."""
    try:
        text = file_text(path, TEMPLATE)
    except ValueError as error:
        raise SpecError(f"model.chat_template: {error}") from None
    if not text.strip():
        raise SpecError(f"model.chat_template: {path} is empty; remove the key to use the tokenizer's template")
    return text


def _id(id: str, folder: Path) -> str:
    return str(absolute(id, folder)) if is_local(id) else id


def _rule(section: RuleSection) -> Rule:
    given = ((param, getattr(section.when, param)) for param in (*PARAMS, *AXES))
    return Rule(section.tier, tuple(Condition(param, *test) for param, test in given if test is not None))


def carbon_of(section: CarbonSection, folder: Path) -> CarbonSource:
    given = {key: value for key, value in section if key not in ("zone", "file")}
    if section.provider != "trace":
        return CarbonSource(
            **given, zone=section.zone or "", file=str(absolute(section.file, folder)) if section.file else None
        )
    if section.file is None or section.file in BUNDLED_TRACES:
        return CarbonSource(**given, zone=section.zone or CarbonSource().zone, file=section.file or CarbonSource().file)
    path = absolute(section.file, folder)
    return CarbonSource(**given, zone=section.zone or path.stem, file=str(path))


def _policy(section: PolicySection) -> PolicyChoice:
    name, options = next((name, options) for name, options in section if options is not None)
    return PolicyChoice(name, dict(options))


def _device(section: DeviceSection, power_w: float) -> Device:
    return Device(**{**dict(section), "power_w": power_w if section.power_w is None else section.power_w})
