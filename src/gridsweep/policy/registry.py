"""The built-in policies by name, with their options, and how a spec's choice becomes a policy."""

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
"""The options of each policy, by policy name."""

LIMITS = ("threshold",)
"""The policies that use tier thresholds; the others ignore them."""

WORDS = {"true": 1.0, "false": 0.0}


def choice_of(text: str) -> PolicyChoice:
    """Parse a policy as written on the command line: `planned`, or with options, `planned:exact,min_saving=0`.

    An option without a value is on. Raises `SpecError` for a value that is not a number.
    """
    name, _, listed = text.partition(":")
    options: dict[str, float] = {}
    for option in filter(None, listed.split(",")):
        key, given, value = option.partition("=")
        try:
            options[key.strip()] = WORDS[value] if value in WORDS else float(value) if given else 1.0
        except ValueError:
            raise SpecError(
                f"policy option {option!r}: not a number; write min_saving=0.05, or exact to turn an option on"
            ) from None
    return PolicyChoice(name, options)


def uses_limits(sweep: Sweep) -> bool:
    """Whether tier thresholds apply to a sweep: because of its policy, or because of its cluster's gate."""
    cluster = sweep.executor.kubernetes
    return sweep.policy.name in LIMITS or (cluster is not None and cluster.gate == "compute-gardener")


def policy_for(choice: PolicyChoice) -> Policy:
    """Return the policy that a spec chose. Raises `SpecError` for an unknown name, or an unknown or invalid option."""
    name, options = choice.name, choice.options
    if name not in OPTIONS:
        raise SpecError(f"unknown policy {name!r}; choose one of {', '.join(OPTIONS)}")
    if unknown := sorted(set(options) - set(OPTIONS[name])):
        takes = ", ".join(OPTIONS[name]) or "none"
        raise SpecError(f"policy {name} has no option {', '.join(unknown)}; its options: {takes}")
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
        raise SpecError("policy on_off has resume_below above pause_above; lower resume_below or raise pause_above")
    return OnOff(**options)
