"""Facts as the text of a journal's rows, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from gridsweep.errors import JournalError
from gridsweep.records import chain, codec
from gridsweep.state.events import Event

_EVENT = Annotated[Event, Field(discriminator="kind")]


@cache
def _reader() -> Callable[[str], Event]:
    return codec.reader(_EVENT)


def text_of(event: Event) -> str:
    """Return a fact as text that is read back as the same fact. Raise `JournalError` if there is none."""
    try:
        text = codec.dumps(event)
        read = _reader()(text)
    except ValueError as error:
        raise JournalError(f"the fact {event.kind} cannot be written: {error}") from None
    if read != event:
        raise JournalError(f"the fact {event.kind} would be read back as another one; nothing was written")
    return text


def event_of(path: Path, row: chain.Row) -> Event:
    """Return the fact of a row. Raise `JournalError` if there is none."""
    try:
        return _reader()(row[3])
    except ValidationError as error:
        what = error.errors()[0]
        raise JournalError(f"{path}: event {row[0]} cannot be read: {what['msg']} at {what['loc']}") from None
