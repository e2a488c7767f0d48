"""The policies by name, and from a spec's choice to one that decides."""

from __future__ import annotations

from gridsweep.errors import SpecError
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.policy.held_deadlines import Held
from gridsweep.policy.literature import CarbonTime, LetsWaitAwhile, LowestWindow
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.situation import Policy
from gridsweep.sweep.sweep import PolicyChoice, Sweep

OPTIONS: dict[str, tuple[str, ...]] = {
    "planned": ("min_saving", "pausing", "exact", "max_pauses"),
    "immediate": (),
    "threshold": ("hold_deadlines",),
    "on_off": ("pause_above", "resume_below"),
    "lowest_window": ("capacity_aware",),
    "carbon_time": ("capacity_aware",),
    "lets_wait_awhile": ("interrupting", "capacity_aware"),
}
"""The policies, each with the options it takes."""

LIMITS = ("threshold",)
"""The policies that start an experiment by its tier's threshold; the others ignore it."""

WORDS = {"true": 1.0, "false": 0.0}


def choice_of(text: str) -> PolicyChoice:
    """A policy as people write it: `planned`, or with options, `planned:exact,min_saving=0`.

    An option without a value is on. Raises `SpecError` for a value that is no number.
    """
    name, _, listed = text.partition(":")
    options: dict[str, float] = {}
    for option in filter(None, listed.split(",")):
        key, given, value = option.partition("=")
        try:
            options[key.strip()] = WORDS[value] if value in WORDS else float(value) if given else 1.0
        except ValueError:
            raise SpecError(
                f"the policy option {option!r} has no number; write it like min_saving=0.05, or exact for yes"
            ) from None
    return PolicyChoice(name, options)


def uses_limits(sweep: Sweep) -> bool:
    """Whether a sweep's experiments start by their tiers' thresholds: by its policy, or by its cluster's gate."""
    cluster = sweep.executor.kubernetes
    return sweep.policy.name in LIMITS or (cluster is not None and cluster.gate == "compute-gardener")


def policy_for(choice: PolicyChoice) -> Policy:
    """The policy a spec chose. Raises `SpecError` for a name or an option that is not one."""
    name, options = choice.name, choice.options
    if name not in OPTIONS:
        raise SpecError(f"there is no policy {name!r}; there are {', '.join(OPTIONS)}")
    if unknown := sorted(set(options) - set(OPTIONS[name])):
        takes = ", ".join(OPTIONS[name]) or "none"
        raise SpecError(f"the policy {name} has no option {', '.join(unknown)}; it takes {takes}")
    match name:
        case "planned":
            usual = Planned()
            return Planned(
                options.get("min_saving", usual.min_saving),
                bool(options.get("pausing", usual.pausing)),
                bool(options.get("exact", usual.exact)),
                int(options.get("max_pauses", usual.max_pauses)),
            )
        case "immediate":
            return Immediate()
        case "threshold":
            return Held(Threshold()) if options.get("hold_deadlines") else Threshold()
        case "lowest_window":
            return LowestWindow(**{option: bool(value) for option, value in options.items()})
        case "carbon_time":
            return CarbonTime(**{option: bool(value) for option, value in options.items()})
        case "lets_wait_awhile":
            return LetsWaitAwhile(**{option: bool(value) for option, value in options.items()})
    if set(options) != set(OPTIONS["on_off"]):
        raise SpecError("policy on_off needs pause_above and resume_below, both in gCO2eq/kWh")
    if not options["resume_below"] <= options["pause_above"]:
        raise SpecError("policy on_off needs a resume_below that is not above pause_above")
    return OnOff(**options)
