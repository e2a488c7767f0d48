"""Answers cached on disk; the reader sets their maximum age. Untrusted or unwritable entries are skipped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gridsweep.carbon.traces import utc

ENTRIES = 200
"""Maximum of answers kept per provider; the oldest are deleted first."""
LARGEST = 12 * 1024 * 1024
"""Maximum size of a cache file, in bytes; an answer of 5 MB is never longer, even when escaped."""


def default_folder() -> Path:
    """Return `$XDG_CACHE_HOME/gridsweep`, or `~/.cache/gridsweep` if it is unset or relative (which XDG ignores)."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (home if home.is_absolute() else Path("~/.cache").expanduser()) / "gridsweep"
    except RuntimeError:  # an account without a home directory, as in some containers
        return Path(tempfile.gettempdir()) / f"gridsweep-{os.getuid()}"


def key_of(provider: str, base_url: str, path: str, params: Sequence[tuple[str, str]]) -> str:
    """Return the cache key of a request; headers and credentials are not part of it."""
    asked = json.dumps([provider, base_url, path, [list(pair) for pair in params]])
    return hashlib.sha256(asked.encode()).hexdigest()


class AnswerCache:
    """The cached answers of one provider, one file each, in `answers/PROVIDER` below `folder`, private to the user.

    `load` and `save` never raise `OSError`; without a usable disk there is only no cache.
    """

    def __init__(self, folder: Path, provider: str):
        self.folder = folder / "answers" / (re.sub(r"[^a-z0-9-]+", "-", provider.lower()).strip("-") or "provider")

    def load(self, key: str, now: datetime, keep: timedelta) -> tuple[str, datetime] | None:
        """Return the body and the time it was fetched, if that is within the last `keep`; else None."""
        try:
            self._own()
            with (self.folder / f"{key}.json").open("rb") as file:
                content = file.read(LARGEST + 1)
            entry = json.loads(content) if len(content) <= LARGEST else {}
            body, fetched_at = entry["body"], utc(datetime.fromisoformat(entry["fetched_at"]))
            foreign = entry["key"] != key or not isinstance(body, str)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if foreign or not timedelta(0) <= now - fetched_at <= keep:
            return None
        return body, fetched_at

    def save(self, key: str, body: str, fetched_at: datetime) -> None:
        """Store an answer atomically."""
        entry = {"key": key, "fetched_at": fetched_at.astimezone(UTC).isoformat(), "body": body}
        with contextlib.suppress(OSError, UnicodeError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own()
            number, name = tempfile.mkstemp(dir=self.folder, suffix=".part")  # 0600 from the start
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    json.dump(entry, file, ensure_ascii=False)
                Path(name).replace(self.folder / f"{key}.json")
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._prune()

    def _own(self) -> None:
        """Make the folder private to the user. Raises `OSError` unless the user owns it."""
        found = self.folder.lstat()
        if found.st_uid != os.getuid():
            raise PermissionError(f"{self.folder} belongs to another user")
        if found.st_mode & 0o077:
            self.folder.chmod(0o700)

    def _prune(self) -> None:
        with os.scandir(self.folder) as entries:
            files = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries)
        for _, path in files[: max(0, len(files) - ENTRIES)]:
            Path(path).unlink(missing_ok=True)
