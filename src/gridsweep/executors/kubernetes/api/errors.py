"""Errors of an API server; none of them holds a credential."""

from __future__ import annotations

from gridsweep.errors import ApiError

__all__ = ["ApiError", "Conflict", "Expired", "Forbidden", "NotFound", "Unreachable"]


class Forbidden(ApiError):
    """The account lacks a right (403), or the server rejects the credentials (401)."""


class NotFound(ApiError):
    """404: there is no such object, or no such kind of object."""


class Conflict(ApiError):
    """409: an object of that name exists, or was changed in the meantime."""


class Expired(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Unreachable(ApiError):
    """No usable answer within the time for retries. The state of the cluster is unknown; workers may still be alive."""
