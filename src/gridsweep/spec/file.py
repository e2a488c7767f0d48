"""The schema of `sweep.yaml`: one class per section, one field per key, each with its description."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gridsweep.grid.registry import names
from gridsweep.spec.axes import Section
from gridsweep.spec.clusters import Executors
from gridsweep.spec.rungs import OptionalProposals, OptionalRepeats, OptionalRungs, Pack, RungsSection
from gridsweep.spec.space import SpaceSection, WhenSection
from gridsweep.spec.study import (
    Choice,
    Datasets,
    Designs,
    Models,
    Plain,
    ProxySection,
    RecipeSection,
)
from gridsweep.spec.values import (
    Flag,
    Limit,
    Moment,
    Number,
    OneOf,
    SecretReference,
    Shorthand,
    Span,
    SpanOrMoment,
    Speed,
    Word,
    choice_of,
    shown,
)
from gridsweep.sweep.tiers import Percentile

MOST_RULES = 100

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_TEXT = r"[^\x00-\x1f]{1,1000}"
_HOW_MANY = Number(least=1, most=1000, whole=True)

Name = Annotated[str, Word(_NAME, "a name of letters, digits, '-', '_' and '.', at most 63 long")]
Variable = Annotated[str, Word(r"[A-Za-z_]\w{0,99}", "the name of an environment variable")]
Text = Annotated[str, Word(r"[^\x00]*", "text", numbers=True)]
Intensity = Annotated[float, Number(least=0, most=5000)]
Power = Annotated[float, Number(above=0, most=1_000_000)]


def _by_name(value: object) -> object:
    """Raise `ValueError` unless a value is a section of variables."""
    if not isinstance(value, dict):
        raise ValueError(f"must be variables by name, such as {{NAME: value}}, not {shown(value)}")
    return value


class TierSection(Section):
    """How long experiments may wait, and for which intensity; tiers listed first start first."""

    name: Name = Field(description="The tier's name in rules and reports.")
    threshold: Annotated[float | Percentile, Limit()] = Field(
        description="Start at or below this intensity: gCO2eq/kWh, or a percentile of the last 28 days such as p40."
    )
    max_delay: Annotated[timedelta, Span(timedelta(0))] = Field(
        description="The longest wait; after it, experiments start at any intensity."
    )


class RuleSection(Section):
    """Assigns experiments to a tier; the first rule whose conditions hold decides."""

    tier: Name = Field(description="The name of a tier.")
    when: WhenSection = Field(
        default=WhenSection(), description="Conditions that must all hold; without any, the rule always holds."
    )


class CarbonSection(Section):
    """Where the carbon intensity comes from."""

    provider: Annotated[str, OneOf(names())] = Field(default="trace", description="The source of the grid data.")
    zone: Annotated[str, Word(r"[\w.:/-]{1,64}", "the name of a grid zone, such as US-CAL-CISO")] | None = Field(
        default=None, description="The grid zone, as the provider names it; default: the zone of the trace."
    )
    file: Annotated[str, Word(_TEXT, "the path of a trace or the name of a bundled one")] | None = Field(
        default=None,
        description="A trace (CSV, Parquet, JSON lines), relative to this file; default: the bundled `solar-valley`.",
    )
    token: Annotated[str, SecretReference()] | None = Field(
        default=None, description="The provider's API key: env:NAME or file:PATH; each provider has a default."
    )
    username: Annotated[str, SecretReference()] | None = Field(
        default=None, description="The user name: env:NAME or file:PATH."
    )
    password: Annotated[str, SecretReference()] | None = Field(
        default=None, description="The password: env:NAME or file:PATH."
    )
    base_url: (
        Annotated[str, Word(r"https?://[^\s\x00-\x1f]{1,500}", "a URL such as https://carbon.example.com")] | None
    ) = Field(default=None, description="The address of the provider's API; default: its usual one.")
    basis: Annotated[str, OneOf(("lifecycle", "direct"))] | None = Field(
        default=None,
        description="If the provider has both: lifecycle includes plant construction and fuel supply, direct does not.",
    )
    value: Intensity | None = Field(
        default=None, description="A constant intensity in gCO2eq/kWh, for the provider static."
    )
    strict: Annotated[bool, Flag()] = Field(default=False, description="Refuse synthetic figures and yearly averages.")
    on_signal_loss: Annotated[str, OneOf(("wait_until_deadline", "wait", "run"))] = Field(
        default="wait_until_deadline", description="What waiting experiments do while there is no grid data."
    )


class OnOffSection(Section):
    """Pauses running experiments above one intensity and resumes them below another."""

    pause_above: Intensity = Field(description="gCO2eq/kWh above which running experiments pause at a checkpoint.")
    resume_below: Intensity = Field(description="gCO2eq/kWh at or below which they resume; at most pause_above.")


class ThresholdSection(Section):
    """The published gate: starts experiments at or below their tier's threshold."""

    hold_deadlines: Annotated[bool, Flag()] = Field(
        default=False,
        description="Start early enough to meet every max_delay on the devices; false: as published, some start late.",
    )


class PlannedSection(Section):
    """Places all remaining work in the hours in which it is expected to emit least."""

    min_saving: Annotated[float, Number(least=0, below=1)] = Field(
        default=0.05,
        description="The share of remaining emissions that waiting must save; else all work starts at once.",
    )
    pausing: Annotated[bool, Flag()] = Field(
        default=True, description="Whether long stints (4 h and more) may pause at a checkpoint."
    )
    max_pauses: Annotated[int, Number(least=0, most=1000, whole=True)] = Field(
        default=6, description="How often one experiment may pause, if `pausing` is true."
    )
    exact: Annotated[bool, Flag()] = Field(
        default=False,
        description="Always place by the exact optimum, without pauses; false: only if lengths differ.",
    )


class RuleOfOneSection(Section):
    """A rule from the literature that places one experiment at a time."""

    capacity_aware: Annotated[bool, Flag()] = Field(
        default=False, description="Place each experiment on the devices that earlier ones leave; false: as published."
    )


class AwhileSection(RuleOfOneSection):
    """Let's Wait Awhile (Middleware 2021)."""

    interrupting: Annotated[bool, Flag()] = Field(
        default=False, description="Use the cleanest slots, pausing in between; false: one window."
    )


class PolicySection(Choice):
    """When experiments start; exactly one key."""

    planned: PlannedSection | None = Field(
        default=None, description="When the remaining work is expected to emit least; replanned at every tick."
    )
    threshold: ThresholdSection | None = Field(
        default=None, description="At or below the tier's threshold, or after its max_delay."
    )
    immediate: Plain | None = Field(default=None, description="As soon as a device is free.")
    on_off: OnOffSection | None = Field(
        default=None, description="At or below one intensity; running experiments pause above another."
    )
    lowest_window: RuleOfOneSection | None = Field(
        default=None, description="In the cleanest window before the latest start: GAIA (ASPLOS 2024)."
    )
    carbon_time: RuleOfOneSection | None = Field(
        default=None, description="Where waiting saves most carbon per time: GAIA (ASPLOS 2024)."
    )
    lets_wait_awhile: AwhileSection | None = Field(
        default=None, description="In the cleanest window or slots: Let's Wait Awhile (Middleware 2021)."
    )


class DeviceSection(Section):
    """One accelerator, or one share of a CPU."""

    name: Name = Field(description="The device's name in reports.")
    memory_gb: Annotated[float, Number(above=0, most=1_000_000)] | None = Field(
        default=None,
        description="Memory in GB; a worker uses up to 90 % of it, or of what is free.",
    )
    speed: Annotated[float, Number(least=0.001, most=1000)] = Field(
        default=1.0, description="Relative speed; divides the estimated duration: 2 is twice as fast."
    )
    power_w: Power | None = Field(default=None, description="Power at full load in W; default: estimates.power_w.")
    idle_power_w: Annotated[float, Number(least=0, most=1_000_000)] = Field(
        default=0.0, description="Idle power in W: drawn during the sweep while nothing runs on the device."
    )
    power_limit_w: Power | None = Field(
        default=None, description="Power limit of the GPU during training, in W; needs root. Default: unchanged."
    )


class EstimatesSection(Section):
    """The duration and power of one experiment on a device of speed 1."""

    duration: Annotated[timedelta, Span()] = Field(description="How long one experiment trains.")
    power_w: Power = Field(description="Average power of one experiment in W.")
    loss_noise: Annotated[float, Number(least=0)] | None = Field(
        default=None,
        description="How far another seed moves a validation loss; experiments closer than that are ties.",
    )
    guess: Annotated[bool, Flag()] = Field(
        default=False, description="The duration is a guess: one stint starts at once and shows how long stints take."
    )
    results: Annotated[str, Word(_TEXT, "the path of a results file")] | None = Field(
        default=None, description="Measured costs of packs and rung evaluations (JSON), relative to this file."
    )


class ReplaySection(Section):
    """Replays a past period of the grid."""

    start: Annotated[datetime, Moment()] = Field(
        alias="from", description="The instant at which the replayed period begins."
    )
    speed: Annotated[float | Literal["auto"], Speed()] = Field(
        description="Grid seconds per second of training; auto: each step takes its share of estimates.duration."
    )


class ClockSection(Section):
    """The clock that the sweep follows."""

    replay: ReplaySection = Field(description="Replay a past grid while training for real.")


Policies = Annotated[PolicySection, choice_of(tuple(PolicySection.model_fields), never_alone=("on_off",))]


def _alike(value: object) -> object:
    if isinstance(value, list):
        return value
    return [{"name": f"device{i}"} for i in range(int(_HOW_MANY.read(value)))]


Devices = Annotated[
    tuple[DeviceSection, ...],
    Field(min_length=1, max_length=1000),
    Shorthand(_alike, _HOW_MANY.schema()),
]


class SpecFile(Section):
    """A sweep: what to train, when it may run, and on what."""

    name: (
        Annotated[str, Word(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower-case letters, digits and '-', at most 63")]
        | None
    ) = Field(default=None, description="The sweep's name; default: the file's.")
    model: Models = Field(description="The base model: its id, or id and revision.")
    dataset: Datasets = Field(description="The dataset: its id, or a section.")
    recipe: RecipeSection = Field(default=RecipeSection(), description="How each experiment is trained.")
    proxy: ProxySection | None = Field(default=None, description="A cheaper base model to rank on; default: none.")
    space: SpaceSection | None = Field(default=None, description="The values of each hyperparameter.")
    design: Designs | None = Field(
        default=None,
        description="Which points are trained; default: grid if there is a space, else published.",
    )
    tiers: Annotated[tuple[TierSection, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="How long experiments may wait, and for which intensity; default: the published three.",
    )
    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1, max_length=MOST_RULES)] | None = Field(
        default=None, description="Which experiments belong to which tier; default: the published rules."
    )
    carbon: CarbonSection = Field(default=CarbonSection(), description="Where the carbon intensity comes from.")
    policy: Policies = Field(
        default=PolicySection(planned=PlannedSection()),
        description="When experiments start.",
        json_schema_extra={"default": "planned"},
    )
    executor: Executors | None = Field(default=None, description="Where the workers run; default: local.")
    devices: Devices = Field(
        default=(DeviceSection(name="device0"),),
        description="The number of devices, or a list of them.",
        json_schema_extra={"default": 1},
    )
    estimates: EstimatesSection = Field(description="The duration and power of one experiment, for plan and simulate.")
    tick: Annotated[timedelta, Span()] = Field(
        default=timedelta(minutes=30),
        description="How often the policy decides.",
        json_schema_extra={"default": "30m"},
    )
    min_wait: Annotated[timedelta, Span(timedelta(0))] = Field(
        default=timedelta(minutes=10),
        description="The shortest wait worth taking.",
        json_schema_extra={"default": "10m"},
    )
    finish_by: Annotated[timedelta | datetime | None, SpanOrMoment()] = Field(
        default=None,
        description="Deadline of the sweep: a duration from the submission, an instant, or auto (the tiers' delays).",
        json_schema_extra={"default": "auto"},
    )
    rungs: OptionalRungs = Field(
        default=RungsSection(),
        description="Steps at which weak experiments stop (successive halving); none trains all to the end.",
        json_schema_extra={"default": "default"},
    )
    repeats: OptionalRepeats = Field(
        default=None, description="With how many seeds the best experiments are trained at the end; default: one."
    )
    propose: OptionalProposals = Field(
        default=None, description="How new points are proposed for places that rungs have freed; default: none are."
    )
    pack: Annotated[int | None, Pack()] = Field(
        default=None,
        description="The most experiments that one stint trains together; auto: all of them with rungs, else one.",
        json_schema_extra={"default": "auto"},
    )
    env: Annotated[dict[Variable, Text], BeforeValidator(_by_name)] = Field(
        default={},
        description="Variables for the workers' environment; env:NAME takes the value of a variable of the loop.",
    )
    clock: ClockSection | None = Field(default=None, description="A replayed clock; default: the wall clock.")
