"""The packages that travel to the cluster with a job: this package's code, the assignment, and the checkpoints."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from gridsweep.errors import ExecutorError
from gridsweep.executors.ray.parcels import Index, Packer
from gridsweep.records.attempts import AttemptFolder

MOST = 64 << 20
"""The most bytes of inputs in one package; Ray's dashboard accepts uploads of 100 MiB."""


def packages(job: Mapping[str, object], folder: AttemptFolder | None) -> Iterator[tuple[str, bytes]]:
    """Yield a job's packages, each with its name: first the working folder, which holds job.json, then the code.

    With a folder, its inputs follow: stint.json and the checkpoints that it names. Raise `ExecutorError` if one of
    them does not exist.
    """
    pieces: dict[str, bytes] = {}
    inputs: Index = {}
    if folder is not None:
        store = folder.store
        names = [str((folder.path / "stint.json").relative_to(store))]
        for part in folder.assignment().members:
            if part.checkpoint is not None:
                saved = store / part.checkpoint.path
                names += [str(path.relative_to(store)) for path in sorted(saved.rglob("*")) if path.is_file()]
        try:
            inputs = Packer(store, pieces.__setitem__).pack(*names)
        except OSError as error:
            raise ExecutorError(f"cannot read what {folder.path} goes on from: {error}") from None
    yield named({"job.json": json.dumps({**job, "inputs": inputs}).encode()})
    yield code()
    files: dict[str, bytes] = {}
    size = 0
    for piece, data in pieces.items():
        if files and size + len(data) > MOST:
            yield named(files)
            files, size = {}, 0
        files[f"pieces/{piece}"] = data
        size += len(data)
    if files:
        yield named(files)


@cache
def code() -> tuple[str, bytes]:
    """Return this package as installed here, so that the cluster runs the same code; it is uploaded once."""
    root = Path(__file__).parents[2]  # src/gridsweep, wherever it is installed
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return named({f"gridsweep/{path.relative_to(root)}": path.read_bytes() for path in paths})


def named(files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return a zip of these files and its name, a digest; equal files give an equal package."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        for name, data in files.items():
            package.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    return f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:16]}.zip", data
