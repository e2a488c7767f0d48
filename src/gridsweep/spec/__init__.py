"""`sweep.yaml` to `Sweep`: read, checked as a whole, expanded into experiments.

Every error of a file comes at once, in one `SpecError`, a line each:
`sweep.yaml:12: tiers[1].max_dely: unknown key; did you mean max_delay?`

A file goes through `yaml_lines` (read), `faults` (each section by itself, as `file`, `study` and `values`
allow), `consistency` (the sections together) and `expansion` (made into a sweep).
May import what lies before it in the order of docs/structure.md.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from gridsweep import handed_on
from gridsweep.sweep.sweep import Sweep

if TYPE_CHECKING:
    from gridsweep.spec.reading import SCHEMA_ID, json_schema, load, loads, template

__all__ = ["SCHEMA_ID", "json_schema", "load", "loads", "template"]
__getattr__ = handed_on(__name__, dict.fromkeys(__all__, "reading"))


def _load(cls: type[Sweep], path: str | PurePath) -> Sweep:
    """`gridsweep.load`, under the name it had until 0.2.0; goes with the next release."""
    from gridsweep.spec.reading import load

    return load(path)


Sweep.load = classmethod(_load)  # type: ignore[attr-defined]  # attached here: a value of the core imports no edge
