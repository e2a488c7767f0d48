"""A recommended sweep on the terminal."""

from __future__ import annotations

from gridsweep.render.figures import energy, grams, hours
from gridsweep.render.screen import console
from gridsweep.runs.recommending import Recommended


def text(made: Recommended) -> None:
    """Print every choice with its reason and source, the estimates, what is not known, and the next commands."""
    out = console()

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    for choice in made.choices:
        source = f" [{choice.source}]" if choice.source else ""
        say(f"{choice.key + ': ' + choice.value}")
        if choice.why:
            say(f"    {choice.why}{source}")
    say("")
    said = f"{hours(made.training_h)} without waiting, {energy(made.energy_kwh)}"
    if made.emissions_g is not None:
        said += f", {grams(made.emissions_g)} CO2eq at the grid's mean of {made.mean_intensity:.0f} g/kWh"
    say(f"estimate:   {made.experiment_count} experiments, {made.whole_runs:g} whole trainings: {said}")
    asked = [f"{made.budget_h:g} h"] if made.budget_h is not None else []
    asked += [f"{made.budget_g:g} g"] if made.budget_g is not None else []
    share = (
        "half of it is planned for, because the duration is a guess" if made.guess else "four fifths are planned for"
    )
    say(f"budget:     {' and '.join(asked)}; {share}" if asked else "budget:     none given (--hours, --grams)")
    for at, one in enumerate(made.unknown):
        say(f"{'' if at else 'not known:':<12}{one}")
    for warning in made.warnings:
        say(f"warning:    {warning}")
    say(f"wrote {made.path}; next: {made.next}")
    say(f"afterwards: {made.afterwards} (or trl) prints the configuration; without --as, how sure it is")
