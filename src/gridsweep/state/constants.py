"""What a sweep takes as constant, as its submission and its attempts have told it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gridsweep.state.events import Fingerprinted
from gridsweep.sweep.constants import COMMITS, differences
from gridsweep.sweep.sweep import Sweep


@dataclass(slots=True)
class Constants:
    """Digests by name; `encoding` is the version of how rows become tokens.

    `missing` names what the first attempt is to tell before another one starts. `refusal` says why what the sweep asks
    for cannot be trained, as an attempt found; it is empty otherwise.
    """

    encoding: int = 1
    things: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    refusal: str = ""

    def pinned(self, sweep: Sweep) -> Sweep:
        """Return a sweep with the known commits as the revisions of its model and dataset."""
        pins = {part: self.things[name] for name, part in COMMITS.items() if name in self.things}
        return replace(sweep, **{part: replace(getattr(sweep, part), revision=pin) for part, pin in pins.items()})

    def take(self, event: Fingerprinted) -> None:
        """Take what is new; the first value of a thing is the one to compare with."""
        if found := differences(self.things, event.things):  # from attempts that started side by side
            self.refusal = f"two attempts do not train the same: {', '.join(found)}"
        self.things = event.things | self.things
        self.missing = event.missing
