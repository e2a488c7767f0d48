"""Uploads to a URL that fsspec knows (`s3://bucket/path`, `gs://...`, `sftp://...`), whole or told.

Object stores have no rename, so an upload cannot appear at once. The adapter's manifest is uploaded last: without it,
the files are an upload that did not end. Every file is read back and its digest compared; if anything fails, what was
uploaded is removed, and the error says what could not be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # a file system of fsspec

from gridsweep.errors import AdapterError
from gridsweep.records.files import MANIFEST

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
FOLDERS = frozenset({"file", "local", "memory", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs", "webdav"})
"""Protocols with real folders, which must exist before their files; in an object store a new folder is a new bucket."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
BLOCK = 1 << 20


def is_url(text: str) -> bool:
    """Return whether a text is a URL rather than a path."""
    return URL.match(text) is not None


def public(url: str) -> str:
    """Return a URL without the user and password that it may hold."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder at a URL: `system` is fsspec's file system, `path` the folder in it."""

    url: str
    system: Any
    path: str

    def check_vacant(self) -> None:
        """Raise `AdapterError` if there is a file, or a folder that is not empty."""
        self.system.invalidate_cache()
        if not self.system.exists(self.path):
            return
        if self.system.isfile(self.path):
            raise AdapterError(f"{self.url} exists and is not a folder; choose another")
        if self.system.ls(self.path, detail=False):
            raise AdapterError(f"{self.url} is not empty, and export overwrites nothing; choose another folder")

    def upload(self, folder: Path) -> None:
        """Upload the files of a folder, the manifest last, and compare what is read back.

        Raise `AdapterError` if a file cannot be written, or differs when it is read back.
        """
        files = [path for path in folder.rglob("*") if path.is_file()]
        files.sort(key=lambda path: (path.name == MANIFEST, path))
        begun: list[str] = []
        try:
            for file in files:
                target = f"{self.path.rstrip('/')}/{file.relative_to(folder).as_posix()}"
                if self._has_folders:
                    self.system.makedirs(target.rpartition("/")[0], exist_ok=True)
                begun.append(target)
                self.system.put_file(str(file), target)
            self.system.invalidate_cache()
            for file, target in zip(files, begun, strict=True):
                if self._digest(target) != hashlib.sha256(file.read_bytes()).hexdigest():
                    name = file.relative_to(folder).as_posix()
                    raise AdapterError(f"{name} at {self.url} differs from what was uploaded; export it again")
        except BaseException as error:
            if left := self._removed(begun):
                told = str(error) if isinstance(error, AdapterError) else f"cannot upload to {self.url}: {_why(error)}"
                raise AdapterError(f"{told.partition(';')[0]}; remove what is left there: {', '.join(left)}") from None
            raise

    @property
    def _has_folders(self) -> bool:
        protocols = self.system.protocol
        return bool(FOLDERS & {protocols, *(() if isinstance(protocols, str) else protocols)})

    def _digest(self, path: str) -> str:
        found = hashlib.sha256()
        with self.system.open(path, "rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
        return found.hexdigest()

    def _removed(self, paths: list[str]) -> list[str]:
        """Remove files, and return those that are still there."""
        left = []
        for path in paths:
            try:
                self.system.invalidate_cache()
                if self.system.exists(path):
                    self.system.rm_file(path)
            except Exception:  # whatever a library raises
                left.append(path)
        return left


@contextmanager
def place(url: str) -> Iterator[Place]:
    """Open the folder at a URL, which must be empty or absent; errors of fsspec become `AdapterError`."""
    shown = public(url)
    try:
        import fsspec
    except ImportError:
        raise AdapterError(f"{shown} needs fsspec; pip install 'gridsweep[remote]', or name a folder") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(url.partition("://")[0].lower())
        remedy = f"pip install {package}" if package else str(error).partition("\n")[0]
        raise AdapterError(f"{shown} needs a package that is not installed", remedy=remedy) from None
    except Exception as error:  # whatever a library raises
        known = "name one that fsspec knows, such as s3://bucket/path, or a folder"
        raise AdapterError(f"cannot open {shown}: {_why(error)}", remedy=known) from None
    opened = Place(shown, system, path)
    try:
        opened.check_vacant()
        yield opened
    except AdapterError:
        raise
    except Exception as error:  # whatever a library raises
        raise AdapterError(
            f"cannot upload to {shown}: {_why(error)}",
            remedy="check the address, the credentials (those that the library of this store reads) and the rights",
        ) from None


def _why(error: BaseException) -> str:
    """Return an error of a library on one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
