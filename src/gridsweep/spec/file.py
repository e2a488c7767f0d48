"""What may stand in a `sweep.yaml`: a class a section, a field a key, each with its description."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from gridsweep.grid.registry import names
from gridsweep.spec.clusters import Executors
from gridsweep.spec.rungs import OptionalProposals, OptionalRepeats, OptionalRungs, Pack, RungsSection
from gridsweep.spec.study import (
    Choice,
    Datasets,
    Designs,
    Models,
    Plain,
    ProxySection,
    RecipeSection,
    Section,
    SpaceSection,
)
from gridsweep.spec.values import (
    Compared,
    Comparison,
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
)
from gridsweep.sweep.tiers import Percentile

MOST_RULES = 100

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_TEXT = r"[^\x00-\x1f]{1,1000}"
_HOW_MANY = Number(least=1, most=1000, whole=True)

Name = Annotated[str, Word(_NAME, "a name of letters, digits, '-', '_' and '.', at most 63 long")]
Intensity = Annotated[float, Number(least=0, most=5000)]
Power = Annotated[float, Number(above=0, most=1_000_000)]


class TierSection(Section):
    """How long experiments may wait, and for what; tiers listed first start first."""

    name: Name = Field(description="What rules and reports call it.")
    threshold: Annotated[float | Percentile, Limit()] = Field(
        description="gCO2eq/kWh at or below which its experiments start, or a percentile of the last 28 days: p40."
    )
    max_delay: Annotated[timedelta, Span(timedelta(0))] = Field(
        description="How long they may wait; then they start at any intensity."
    )


class WhenSection(Section):
    """Conditions on the hyperparameters; all must hold."""

    r: Annotated[Comparison, Compared()] | None = Field(default=None, description='LoRA rank: 16, or ">= 16".')
    alpha: Annotated[Comparison, Compared()] | None = Field(default=None, description='LoRA alpha: 128, or "< 128".')
    lr: Annotated[Comparison, Compared()] | None = Field(default=None, description='Peak learning rate: "<= 1e-5".')
    dropout: Annotated[Comparison, Compared()] | None = Field(default=None, description='LoRA dropout: ">= 0.15".')


class RuleSection(Section):
    """Sends experiments to a tier; the first rule whose conditions hold decides."""

    tier: Name = Field(description="The name of a tier.")
    when: WhenSection = Field(
        default=WhenSection(), description="Conditions, all of which must hold; none: every experiment."
    )


class CarbonSection(Section):
    """Where the carbon intensity comes from."""

    provider: Annotated[str, OneOf(names())] = Field(default="trace", description="Who reads the grid.")
    zone: Annotated[str, Word(r"[\w.:/-]{1,64}", "the name of a grid zone, such as US-CAL-CISO")] | None = Field(
        default=None, description="The grid zone, as the provider names it; default: the trace's own."
    )
    file: Annotated[str, Word(_TEXT, "the path of a trace or the name of a bundled one")] | None = Field(
        default=None,
        description="A trace (CSV, Parquet, JSON lines), relative to this file; default: the bundled `solar-valley`.",
    )
    token: Annotated[str, SecretReference()] | None = Field(
        default=None, description="Where the provider's key is: env:NAME or file:PATH; each provider has a default."
    )
    username: Annotated[str, SecretReference()] | None = Field(
        default=None, description="Where the user's name is: env:NAME or file:PATH."
    )
    password: Annotated[str, SecretReference()] | None = Field(
        default=None, description="Where the password is: env:NAME or file:PATH."
    )
    base_url: (
        Annotated[str, Word(r"https?://[^\s\x00-\x1f]{1,500}", "a URL such as https://carbon.example.com")] | None
    ) = Field(default=None, description="Where the provider's API is, if not at its usual address.")
    basis: Annotated[str, OneOf(("lifecycle", "direct"))] | None = Field(
        default=None, description="Whether building plants and fetching fuel count, where the provider has both."
    )
    value: Intensity | None = Field(default=None, description="A constant in gCO2eq/kWh, for the provider static.")
    strict: bool = Field(default=False, description="Refuse synthetic figures and yearly averages.")
    on_signal_loss: Annotated[str, OneOf(("wait_until_deadline", "wait", "run"))] = Field(
        default="wait_until_deadline", description="What waiting work does while nothing is known of the grid."
    )


class OnOffSection(Section):
    """Pauses running work above one intensity, resumes it below another."""

    pause_above: Intensity = Field(description="gCO2eq/kWh above which running work pauses at a checkpoint.")
    resume_below: Intensity = Field(description="gCO2eq/kWh at or below which it goes on; at most pause_above.")


class ThresholdSection(Section):
    """The published gate: starts at or below the tier's threshold."""

    hold_deadlines: bool = Field(
        default=False,
        description="Start early enough for the devices to keep every max_delay; false: as published, some start late.",
    )


class PlannedSection(Section):
    """Places all that is left where it is expected to emit least."""

    min_saving: Annotated[float, Number(least=0, below=1)] = Field(
        default=0.05, description="The share of what is left to emit that waiting must save; below it all runs at once."
    )
    pausing: bool = Field(default=True, description="Whether long stints (4 h and more) pause at a checkpoint.")
    max_pauses: Annotated[int, Number(least=0, most=1000, whole=True)] = Field(
        default=6, description="How often one experiment may pause, where `pausing` is set."
    )
    exact: bool = Field(
        default=False,
        description="Place by the exact optimum at every look, never pausing; else only where lengths differ.",
    )


class RuleOfOneSection(Section):
    """A rule of the literature, which looks at one experiment at a time."""

    capacity_aware: bool = Field(
        default=False, description="One experiment after another on what earlier ones leave; false: as published."
    )


class AwhileSection(RuleOfOneSection):
    """Let's Wait Awhile (Middleware 2021)."""

    interrupting: bool = Field(default=False, description="The cheapest slots, pausing between them; false: a window.")


class PolicySection(Choice):
    """When experiments start; exactly one key."""

    planned: PlannedSection | None = Field(
        default=None, description="When all that is left is expected to emit least; asked anew at every tick."
    )
    threshold: ThresholdSection | None = Field(
        default=None, description="At or below their tier's threshold, or past its max_delay."
    )
    immediate: Plain | None = Field(default=None, description="As soon as a device is free.")
    on_off: OnOffSection | None = Field(default=None, description="Between two limits, pausing what runs.")
    lowest_window: RuleOfOneSection | None = Field(
        default=None, description="In the cleanest window before its latest start: GAIA (ASPLOS 2024)."
    )
    carbon_time: RuleOfOneSection | None = Field(
        default=None, description="Where most carbon is saved for the time it takes: GAIA (ASPLOS 2024)."
    )
    lets_wait_awhile: AwhileSection | None = Field(
        default=None, description="In the cleanest window or slots: Let's Wait Awhile (Middleware 2021)."
    )


class DeviceSection(Section):
    """One accelerator, or one share of a CPU."""

    name: Name = Field(description="What reports call it.")
    memory_gb: Annotated[float, Number(above=0, most=1_000_000)] | None = Field(
        default=None,
        description="Memory, in GB; a worker fills nine tenths of it, or of what is free.",
    )
    speed: Annotated[float, Number(least=0.001, most=1000)] = Field(
        default=1.0, description="Divides the estimated duration: 2 is twice as fast."
    )
    power_w: Power | None = Field(default=None, description="Draw at full load, in W; default: estimates.power_w.")
    idle_power_w: Annotated[float, Number(least=0, most=1_000_000)] = Field(
        default=0.0, description="Draw in W while the sweep goes on and nothing runs on it."
    )
    power_limit_w: Power | None = Field(
        default=None, description="What its GPU is limited to while it trains, in W; needs root. Default: as it is."
    )


class EstimatesSection(Section):
    """What one experiment takes on a device of speed 1."""

    duration: Annotated[timedelta, Span()] = Field(description="How long it trains.")
    power_w: Power = Field(description="What it draws, in W.")
    loss_noise: Annotated[float, Number(least=0)] | None = Field(
        default=None,
        description="How far another seed is known to move a validation loss; places closer than that are ties.",
    )
    results: Annotated[str, Word(_TEXT, "the path of a results file")] | None = Field(
        default=None, description="Measured costs of packs and rung evaluations (JSON), relative to this file."
    )


class ReplaySection(Section):
    """Lives through a past stretch of the grid."""

    start: Annotated[datetime, Moment()] = Field(
        alias="from", description="The instant of the grid at which it begins."
    )
    speed: Annotated[float | Literal["auto"], Speed()] = Field(
        description="Seconds of the grid to one second of training; auto: a step takes its share of the estimate."
    )


class ClockSection(Section):
    """What time it is for the sweep."""

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
    recipe: RecipeSection = Field(default=RecipeSection(), description="How every experiment is trained.")
    proxy: ProxySection | None = Field(default=None, description="A cheaper stand-in to rank on; default: none.")
    space: SpaceSection | None = Field(default=None, description="The values of each hyperparameter.")
    design: Designs | None = Field(
        default=None,
        description="Which points are trained; default: grid where there is a space, else published.",
    )
    tiers: Annotated[tuple[TierSection, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="How long experiments may wait, and for what; default: the published three."
    )
    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1, max_length=MOST_RULES)] | None = Field(
        default=None, description="Which experiment goes to which tier; default: the published rules."
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
        description="How many devices, or a list of them.",
        json_schema_extra={"default": 1},
    )
    estimates: EstimatesSection = Field(description="The duration and power of one experiment, for plan and simulate.")
    tick: Annotated[timedelta, Span()] = Field(
        default=timedelta(minutes=30),
        description="How often the policy is asked.",
        json_schema_extra={"default": "30m"},
    )
    min_wait: Annotated[timedelta, Span(timedelta(0))] = Field(
        default=timedelta(minutes=10),
        description="Waits shorter than that are not worth it.",
        json_schema_extra={"default": "10m"},
    )
    finish_by: Annotated[timedelta | datetime | None, SpanOrMoment()] = Field(
        default=None,
        description="When all must have ended: a span from the submission, an instant, or auto (the tiers' delays).",
        json_schema_extra={"default": "auto"},
    )
    rungs: OptionalRungs = Field(
        default=RungsSection(),
        description="Where experiments that fall behind stop; none trains all to the end.",
        json_schema_extra={"default": "default"},
    )
    repeats: OptionalRepeats = Field(
        default=None, description="With how many seeds the best are trained in the end; default: one."
    )
    propose: OptionalProposals = Field(
        default=None, description="Who proposes points for places that rungs have freed; default: nobody."
    )
    pack: Annotated[int | None, Pack()] = Field(
        default=None,
        description="How many experiments a stint trains together at most; auto: with rungs as many as there are.",
        json_schema_extra={"default": "auto"},
    )
    clock: ClockSection | None = Field(default=None, description="Default: the wall clock.")
