"""python -m gridsweep.train.probe [SWEEP_OR_MODEL] [--seconds N] [--json]

Measures on this device how a sweep's adapters are trained fastest (the sweep is a sweep.json, as a run folder keeps
it), and writes the result to `devices/<device>.json` in the cache. The probe is a separate program that
`gridsweep doctor --train` starts. It downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing the module takes seconds
    from gridsweep.train.probing import Measurement, Subject

DEFAULT_MODEL = "tiny-qwen2"
SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Measure, write, print. Return 2 if that is impossible, with a line on stderr."""
    options = _options(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = "1"  # before any Hugging Face library is imported

    from gridsweep.errors import GridsweepError

    try:
        from gridsweep.train.probing import Subject, measured

        result = measured(_subject(options.subject, Subject), options.seconds)
        result["written"] = str(_write(result))
    except ModuleNotFoundError as error:
        print(f"the Python package {error.name} is missing; pip install 'gridsweep[train]'", file=sys.stderr)
        return 2
    except GridsweepError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(result))
    else:
        for choice in result["choices"]:
            best = " (best)" if choice == result["best"] else ""
            print(f"{choice['members']:>3} members: {choice['tokens_per_s']:,.0f} tokens/s{best}")
        print(result["written"])
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gridsweep.train.probe")
    parser.add_argument("subject", nargs="?", default=DEFAULT_MODEL, metavar="SWEEP_OR_MODEL")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _subject(named: str, kind: type[Subject]) -> Subject:
    """Return a sweep's model, data and experiments; for a model alone, the published design on the standard library."""
    from gridsweep.records import codec
    from gridsweep.sweep.experiments import Dataset, Model, Recipe
    from gridsweep.sweep.sweep import Sweep

    if Path(named).suffix != ".json":
        return kind(Model(named), Dataset("stdlib"), Recipe(), ())
    sweep = codec.loads(Sweep, Path(named).read_text(encoding="utf-8"))
    memory = sweep.devices[0].memory_gb
    params = tuple(experiment.params for experiment in sweep.experiments)
    return kind(sweep.model, sweep.dataset, sweep.recipe, params, None if memory is None else memory * 1e9)


def _write(result: Measurement) -> Path:
    """Add the result to this device's results of other models and return the file, which appears by rename."""
    from gridsweep.train.cache import cache_folder
    from gridsweep.train.probing import SCHEMA_VERSION, file_name

    file = cache_folder() / "devices" / f"{file_name(result['device'])}.json"
    file.parent.mkdir(exist_ok=True)
    models = {}
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["schema_version"] == SCHEMA_VERSION:
            models = dict(before["models"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or unreadable: start a new file
    models[result["model"]] = result
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    text = json.dumps({"schema_version": SCHEMA_VERSION, "device": result["device"], "models": models}, indent=1)
    draft.write_text(text + "\n", encoding="utf-8")
    draft.rename(file)
    return file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
