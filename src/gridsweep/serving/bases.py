"""What servers must know of a base model, found by a separate process, because that may load torch."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any  # what JSON holds

from gridsweep.errors import SpecError
from gridsweep.records import codec
from gridsweep.serving.ollama import Around, Prompts
from gridsweep.serving.servable import shown
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Model

CONVERTING = timedelta(minutes=10)


def located(base: Model, taught: Taught) -> tuple[str, str | None, dict[str, object] | None]:
    """Return a base model's location, and the chat template and the generation configuration that it lacks.

    Raise `SpecError` if the model cannot be found.
    """
    told = _asked(base, taught)
    return told["where"], told["chat_template"], told["generation_config"]


def prompts_of(base: Model, taught: Taught) -> Prompts:
    """Return what a Modelfile needs to know of a base model. Raise `SpecError` if the model cannot be found."""
    told = _asked(base, taught, "--prompts")
    around = told["around"]
    stops, context, architecture = tuple(told["stops"]), told["context"], told["architecture"]
    return Prompts(None if around is None else Around(**around), stops, context, architecture)


def _asked(base: Model, taught: Taught, *options: str) -> dict[str, Any]:
    id, asking = base.id, [sys.executable, "-P", "-m", "gridsweep.serving.base", *options]
    given = codec.dumps((base, taught))
    try:
        seconds = CONVERTING.total_seconds()
        asked = subprocess.run(asking, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise SpecError(f"the base model {shown(id)} was not found or converted within {CONVERTING}") from None
    try:
        told = json.loads(asked.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        told = None
    if asked.returncode or not isinstance(told, dict):
        why = (asked.stderr.strip().splitlines() or ["no error output"])[-1].removeprefix("error: ")
        raise SpecError(f"cannot find the base model {shown(id)}: {why}")
    return told
