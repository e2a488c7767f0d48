"""python -m gridsweep.train ATTEMPT_FOLDER"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

stop_asked = False


def _stop(*_: object) -> None:
    global stop_asked
    stop_asked = True


def main(arguments: list[str]) -> int:
    """Run the attempt in a folder. Return 0 for a result, 1 for a result that holds an error, 2 for wrong usage.

    An attempt that another worker has begun is wrong usage too: nothing is written into its folder.
    """
    # Before anything else, so that a stop request while the libraries load is not lost.
    signal.signal(signal.SIGTERM, _stop)
    if len(arguments) != 1:
        print("usage: python -m gridsweep.train ATTEMPT_FOLDER", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    from gridsweep.records.attempts import AttemptFolder, Result, now

    folder = AttemptFolder(Path(arguments[0]).absolute())
    try:
        folder.sign_in()
    except FileExistsError:
        print(f"another worker has begun {folder.path}; this one ends", file=sys.stderr)
        return 2
    except OSError as error:
        print(explained(error), file=sys.stderr)
        return 1
    try:
        assignment = folder.assignment()
        from gridsweep.train.model import offline_if_local

        offline_if_local(assignment.model, assignment.dataset)  # before any Hugging Face library is imported
        from gridsweep.train.worker import Worker

        result = Worker(folder, assignment, lambda: stop_asked).run()
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        from gridsweep.errors import SpecError

        refused = isinstance(error, SpecError)  # the next attempt would get the same assignment
        result = Result(now(), (), error=explained(error), refused=refused, storage=of_disk(error))
    try:
        folder.finish(result)
    except OSError as error:
        print(explained(error), file=sys.stderr)  # a full disk may have room for this line, at the end of log.txt
        return 1
    return 1 if result.error else 0


def of_disk(error: Exception) -> bool:
    """Return whether the disk is at fault, and not the experiments: they go on when it can be used again."""
    from gridsweep.records.disk import DISK

    return isinstance(error, OSError) and error.errno in DISK


def explained(error: Exception) -> str:
    """Return an error as one line: what happened, to which thing, what to do."""
    from gridsweep.errors import GridsweepError
    from gridsweep.records.disk import unusable

    text = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, GridsweepError):
        return text
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text:
        return (
            f"out of memory ({text[:200]}); lower recipe.max_length, or set pack to a smaller number: "
            "fewer adapters then live on the device"
        )
    if isinstance(error, OSError) and of_disk(error):
        return unusable(error)
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is missing; install it with: pip install 'gridsweep[train]'"
    return f"{kind}: {text[:500]}; the traceback is in log.txt"


if __name__ == "__main__":
    gc.disable()  # until loading is done (see worker.py): the collector makes the imports a quarter slower
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all files are written; an orderly shutdown of torch would take another second
