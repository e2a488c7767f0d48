"""Changes of a sweep between two of its runs: which are allowed, and which were made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from gridsweep.carbon.spans import hours
from gridsweep.errors import SpecError
from gridsweep.records import codec
from gridsweep.sweep.rungs import DEFAULT, EARLIER, Rungs, adapted, scaled
from gridsweep.sweep.sweep import Sweep

_SPAN = re.compile(r"-?P(?=.)(\d+[DW])*(T[\d.HMS]+)?")
"""A span as the codec writes it, in ISO 8601."""

PODS = tuple(
    f"executor.kubernetes.{key}"
    for key in (
        "image", "cpu", "memory", "ephemeral_storage", "node_selector", "runtime_class", "pod", "secret",
        "hugging_face_secret", "ttl", "run_deadline",
    )
)  # fmt: skip
"""What may change of the pods of a cluster: not where things are."""
AMENDABLE = ("tiers", "policy", "devices", "finish_by", "pack", "repeats", "propose", "env", "executor.local", *PODS)
_SHORT = (*(key for key in AMENDABLE if key not in PODS), "the pods of executor.kubernetes (image, cpu, memory, ...)")


def amendments(old: Sweep, new: Sweep, added: Collection[str] = ()) -> list[str]:
    """Return the changes from one spec to the next, one line each; `added` are experiments added during the sweep.

    A model or dataset may have moved to another folder under its own name: its content is compared elsewhere. Raise
    `SpecError` if a change is not allowed.
    """
    old, new = (replace(s, experiments=tuple(e for e in s.experiments if e.id not in added)) for s in (old, new))
    bare = [[replace(e, tier="", reason="") for e in sweep.experiments] for sweep in (old, new)]
    changed = list(_differences("", *(_plain(replace(sweep, experiments=())) for sweep in (old, new))))
    allowed = (*AMENDABLE, *_moved(old, new))
    refused = [line for line in changed if not any(_within(line, key) for key in allowed)]
    if bare[0] != bare[1]:
        refused.append(f"experiments: {len(old.experiments)} before, {len(new.experiments)} now, and they differ")
    if refused:
        listed = "\n  ".join(refused)
        raise SpecError(
            f"the folder holds another sweep, and only {', '.join(_SHORT)} may change:\n  {listed}",
            remedy="undo these changes, or choose another folder with --folder",
        )
    pairs = zip(old.experiments, new.experiments, strict=True)
    moved = sum((was.tier, was.reason) != (now.tier, now.reason) for was, now in pairs)
    return changed + ([f"tiers of {moved} experiments"] if moved else [])


def as_submitted(old: Sweep, new: Sweep) -> tuple[Sweep, str]:
    """Return a spec read now with the default rungs that its sweep was submitted with, and a note if they differ.

    `rungs: default` meant other rungs up to version 0.1.0. A sweep that was submitted with them goes on with them.
    """
    count = sum(e.repeats is None for e in new.experiments)
    usual = adapted(DEFAULT, count, new.total_steps, round(new.recipe.warmup * new.total_steps))
    earlier = scaled(EARLIER, sum(e.repeats is None for e in old.experiments))
    if _places(new.rungs) != _places(usual) or old.rungs is None or _places(old.rungs) != _places(earlier):
        return new, ""
    rungs = replace(old.rungs, keep_always=new.rungs.keep_always if new.rungs else old.rungs.keep_always)
    note = f"the rungs stay as submitted: {', '.join(map(str, old.rungs.keep))}, the default of version 0.1.0"
    return replace(new, rungs=rungs, pack=new.pack if new.rungs else old.pack), note


def _places(rungs: Rungs | None) -> tuple[tuple[float, ...], tuple[int, ...], float | None]:
    return (rungs.at, rungs.keep, rungs.drift) if rungs and rungs.at else ((), (), None)


def _moved(old: Sweep, new: Sweep) -> list[str]:
    """Return the keys of files and folders that lie elsewhere now, under their own names."""
    places = {
        "model.id": (old.model.id, new.model.id),
        "dataset.id": (old.dataset.id, new.dataset.id),
        "dataset.validation": (old.dataset.validation or "", new.dataset.validation or ""),
        "carbon.file": (old.carbon.file or "", new.carbon.file or ""),
    }
    return [
        key
        for key, (before, now) in places.items()
        if before != now and Path(before).is_absolute() and Path(before).name == Path(now).name
    ]


def _within(line: str, key: str) -> bool:
    """Return whether a changed line is of a key, or of one below it."""
    return line.startswith(key) and line[len(key)] in ".:["


def _plain(sweep: Sweep) -> object:
    return json.loads(codec.dumps(sweep))


def _differences(path: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(f"{path}.{key}" if path else str(key), old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{index}]", a, b)
    elif isinstance(old, list) and isinstance(new, list):
        yield f"{path}: {len(old)} before, {len(new)} now"
    elif old != new:
        yield f"{path}: {_shown(old)} before, {_shown(new)} now"


def _shown(value: object) -> str:
    """Return a value as text: a span as `1.5 h`, a long text, such as a chat template, by beginning and digest."""
    if isinstance(value, str) and _SPAN.fullmatch(value):
        return hours(codec.loads(timedelta, json.dumps(value)))
    if not isinstance(value, str) or len(value) <= 200:
        return repr(value)
    return f"{value[:40]!r}... (sha256 {hashlib.sha256(value.encode()).hexdigest()[:12]})"
