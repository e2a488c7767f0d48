"""Command-line parameter types for instants, time spans and targets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any  # click's own signature

import click


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """An ISO 8601 instant; a time without a time zone is an error."""

    name = "ISO"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not an ISO 8601 time; write, for example, 2024-06-10T16:00:00Z", param, ctx)
        if moment.tzinfo is None and len(value) > 10:
            self.fail(f"{value!r} has no time zone; write {value}Z for UTC", param, ctx)
        try:
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} is no time from the year 1 to 9999 in UTC", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A time span: `90m`, `6h`, `1h30m`, `2d`."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from gridsweep.spec.values import Span as Reader

        if isinstance(value, timedelta):
            return value
        try:
            return Reader().read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Target(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A folder, or a URL: a path would lose one of the two slashes of `s3://`."""

    name = "FOLDER|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        return value if isinstance(value, Path) or "://" in value else Path(value)
