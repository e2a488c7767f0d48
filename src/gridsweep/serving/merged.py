"""Merging an adapter into its base, by a program of its own that loads torch (`gridsweep.train.merging`)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any  # the figures of a merge, as JSON

from gridsweep.errors import AdapterError
from gridsweep.records import codec
from gridsweep.sweep.experiments import Base, Model

MERGING = timedelta(hours=2)


def check_base(experiment: str, base: Base) -> None:
    """Raise `AdapterError` for an adapter that was trained over another base than the full one."""
    if base != "full":
        raise AdapterError(
            f"{experiment} was trained over the base in 4 bits: merged into the full base it would be another model "
            "than the one whose loss is told; export it without --merge, or merge the winner over the full base"
        )


def merge(model: Model, adapter: Path, folder: Path) -> dict[str, Any]:
    """Write base and adapter as one model into `folder`; return `dtype`, `modules`, `apart`, `effect` and `told`.

    Raise `AdapterError` with the program's words if that is refused or fails.
    """
    given = codec.dumps((model, str(adapter), str(folder)))
    command = [sys.executable, "-P", "-m", "gridsweep.train.merging"]
    try:
        seconds = MERGING.total_seconds()
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise AdapterError(f"the merge took longer than {MERGING}; export the adapter without --merge") from None
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AdapterError(f"the adapter was not merged: {words[-1][:500]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
