"""Errors of an API server; none of them holds a credential."""

from __future__ import annotations

from gridsweep.errors import ApiError

__all__ = [
    "ApiError",
    "Conflict",
    "Denied",
    "Expired",
    "Forbidden",
    "NotFound",
    "QuotaExceeded",
    "Unauthorized",
    "Unreachable",
]


class Forbidden(ApiError):
    """The account lacks a right (403), or the server rejects the credentials (401)."""


class Unauthorized(Forbidden):
    """401: the server rejects the credentials, whatever is asked."""


class QuotaExceeded(ApiError):
    """403 or 429: a ResourceQuota of the namespace is used up; the same request succeeds once it frees.

    `said` is the quota's own message, without the object's name.
    """

    def __init__(self, message: str, said: str):
        super().__init__(message)
        self.said = said


class Denied(ApiError):
    """An admission policy, webhook or plug-in of the cluster refuses the object, for a reason that is not a right."""


class NotFound(ApiError):
    """404: there is no such object, or no such kind of object."""


class Conflict(ApiError):
    """409: an object of that name exists, or was changed in the meantime."""


class Expired(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Unreachable(ApiError):
    """No usable answer within the time for retries. The state of the cluster is unknown; workers may still be alive."""
