"""Experiments over another base: never in one pack, and labelled."""

from dataclasses import replace
from datetime import UTC, datetime

from gridsweep.schedule.worklist import stages_at_once
from gridsweep.spec import loads

SPEC = """\
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
"""


def test_experiments_over_different_bases_share_no_pack():
    sweep = loads(SPEC)
    mixed = tuple(replace(e, base="4-bit") if n % 2 else e for n, e in enumerate(sweep.experiments))
    bases = {e.id: e.base for e in mixed}
    works = stages_at_once(replace(sweep, experiments=mixed), datetime(2026, 1, 1, tzinfo=UTC))[0]
    assert sorted(len({bases[id] for id in (w.experiment, *w.others)}) for w in works) == [1, 1]
