"""The conditions of a back-test: devices, deadlines and durations other than the spec's, and the policies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import exp
from statistics import NormalDist

from gridsweep.policy.registry import choice_of, policy_for
from gridsweep.policy.situation import Policy
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import PolicyChoice, Sweep


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a back-test; None keeps the sweep's own value.

    `policies` are compared, the sweep's own if none is named; a name may have options: `planned:exact` or
    `planned:min_saving=0`. `forecast` is the forecast that policies see: `perfect` is the future trace, any other name
    the provider's own forecast. `devices` counts devices like the sweep's first one. `finish_by` replaces the tiers'
    start deadlines. With `lengths`, experiments take longer or shorter than estimated (see `drawn`); the bound without
    pauses cannot be proven then and is left out, so all policies are compared with the bound with pauses. Without
    `bounds` no optimum is computed. Reductions are against running the same sweep at once, or the sweep `against`.
    """

    policies: Sequence[str | PolicyChoice] = ()
    tick: timedelta | None = None
    forecast: str = "history"
    devices: int | None = None
    finish_by: timedelta | None = None
    idle_power_w: float | None = None
    lengths: float = 0.0
    bounds: bool = True
    against: Sweep | None = None

    def of(self, sweep: Sweep) -> Sweep:
        """Return the sweep under these conditions."""
        return under(
            sweep, tick=self.tick, devices=self.devices, finish_by=self.finish_by, idle_power_w=self.idle_power_w
        )

    def tried(self, sweep: Sweep) -> list[tuple[str, Policy]]:
        """Return the policies with their labels. Raise `SpecError` for an unknown policy."""
        own = {sweep.policy.name: sweep.policy}  # a name alone takes the spec's options if the spec chose that policy
        asked = self.policies or [sweep.policy]
        named = [own.get(p, choice_of(p)) if isinstance(p, str) else p for p in asked]
        labels = [p if isinstance(p, str) else p.name for p in asked]
        if len(set(labels)) < len(labels):  # the options distinguish variants of one policy
            labels = [_labelled(choice) for choice in named]
        return list(zip(labels, map(policy_for, named), strict=True))


def under(
    sweep: Sweep,
    *,
    tick: timedelta | None = None,
    devices: int | None = None,
    finish_by: timedelta | None = None,
    idle_power_w: float | None = None,
) -> Sweep:
    """Return the sweep under other conditions; None keeps its own value.

    `devices` counts devices like the sweep's first one. `finish_by` replaces the tiers' start deadlines.
    """
    own = sweep.devices
    if devices is not None:
        own = tuple(replace(own[0], name=f"device{i}") for i in range(devices))
    if idle_power_w is not None:
        own = tuple(replace(device, idle_power_w=idle_power_w) for device in own)
    tiers = sweep.tiers if finish_by is None else tuple(replace(tier, max_delay=finish_by) for tier in sweep.tiers)
    by = sweep.finish_by if finish_by is None else finish_by
    return replace(sweep, tick=tick or sweep.tick, devices=own, tiers=tiers, finish_by=by, replay=None)


def drawn(sweep: Sweep, spread: float) -> dict[str, float]:
    """Return each experiment's factor on its estimated duration: log-normal with mean 1, keyed by its id."""
    found = {}
    for experiment in sweep.experiments:
        digest = int.from_bytes(hashlib.sha256(experiment.id.encode()).digest()[:6], "big")
        found[experiment.id] = exp(spread * NormalDist().inv_cdf((digest + 0.5) / 2**48) - spread**2 / 2)
    return found


def _labelled(choice: PolicyChoice) -> str:
    options = ",".join(f"{key}={number(value)}" for key, value in choice.options.items())
    return f"{choice.name}:{options}" if options else choice.name
