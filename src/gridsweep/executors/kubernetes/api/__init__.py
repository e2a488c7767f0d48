"""The only HTTP layer for a Kubernetes API server: requests with retries, watches, credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.executors.kubernetes.api.client import CLAIMS, EVENTS, JOBS, PODS, WORKLOADS, Api, Resource
    from gridsweep.executors.kubernetes.api.credentials import Server, server_for
    from gridsweep.executors.kubernetes.api.errors import (
        ApiError,
        Conflict,
        Denied,
        Expired,
        Forbidden,
        NotFound,
        QuotaExceeded,
        Unauthorized,
        Unreachable,
    )
    from gridsweep.executors.kubernetes.api.watch import Watch

__all__ = [
    "CLAIMS",
    "EVENTS",
    "JOBS",
    "PODS",
    "WORKLOADS",
    "Api",
    "ApiError",
    "Conflict",
    "Denied",
    "Expired",
    "Forbidden",
    "NotFound",
    "QuotaExceeded",
    "Resource",
    "Server",
    "Unauthorized",
    "Unreachable",
    "Watch",
    "server_for",
]
__getattr__ = handed_on(
    __name__,
    {
        "Api": "client",
        "ApiError": "errors",
        "CLAIMS": "client",
        "Conflict": "errors",
        "Denied": "errors",
        "EVENTS": "client",
        "Expired": "errors",
        "Forbidden": "errors",
        "JOBS": "client",
        "NotFound": "errors",
        "PODS": "client",
        "QuotaExceeded": "errors",
        "Resource": "client",
        "Server": "credentials",
        "Unauthorized": "errors",
        "Unreachable": "errors",
        "WORKLOADS": "client",
        "Watch": "watch",
        "server_for": "credentials",
    },
)
