"""`sweep.yaml` to `Sweep`: reading, checking and expansion into experiments.

All errors of a file are reported at once, in one `SpecError`, one line each:
`sweep.yaml:12: tiers[1].max_dely: unknown key; did you mean max_delay?`

A file passes through `yaml_lines` (parsing), `faults` (each section alone, against the schema in `file`, `study`
and `values`), `consistency` (checks across sections) and `expansion` (the `Sweep`).
This package may import the packages before it in docs/structure.md.
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
    """Call `gridsweep.load`; the name used until 0.2.0, removed in the next release."""
    from gridsweep.spec.reading import load

    return load(path)


Sweep.load = classmethod(_load)  # type: ignore[attr-defined]  # attached here, because the core does not import edges
