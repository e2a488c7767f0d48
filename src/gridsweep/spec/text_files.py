"""Text files that a spec names, read whole."""

from __future__ import annotations

from pathlib import Path

from gridsweep.records.bounded import UnfitError, whole


def file_text(path: Path, most: int) -> str:
    """Return the text of a file of at most `most` bytes. Raise `ValueError` if it cannot be read or is not UTF-8."""
    try:
        return whole(path, most, follow=True).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; correct the path") from None
    except UnfitError as error:
        raise ValueError(f"cannot read {path}: {error}; correct the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; save it as UTF-8") from None
