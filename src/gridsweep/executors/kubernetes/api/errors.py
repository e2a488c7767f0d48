"""What an API server can answer instead of an object; none of these holds a credential."""

from __future__ import annotations

from gridsweep.errors import ApiError

__all__ = ["ApiError", "Conflict", "Expired", "Forbidden", "NotFound", "Unreachable"]


class Forbidden(ApiError):
    """We lack a right: 403, or 401 where it does not know us."""


class NotFound(ApiError):
    """There is no such object, or no such kind of object."""


class Conflict(ApiError):
    """An object of that name exists, or was changed by somebody else in between."""


class Expired(ApiError):
    """410: what we remember is too old to go on from; list anew."""


class Unreachable(ApiError):
    """No answer that helps within our patience. Nothing is known of the cluster then; above all not that it is dead."""
