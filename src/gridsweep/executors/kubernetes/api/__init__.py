"""The only HTTP layer for a Kubernetes API server: requests with retries, watches, credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.executors.kubernetes.api.client import CLAIMS, JOBS, PODS, Api, Resource
    from gridsweep.executors.kubernetes.api.credentials import Server, server_for
    from gridsweep.executors.kubernetes.api.errors import ApiError, Conflict, Expired, Forbidden, NotFound, Unreachable
    from gridsweep.executors.kubernetes.api.watch import Watch

__all__ = [
    "CLAIMS",
    "JOBS",
    "PODS",
    "Api",
    "ApiError",
    "Conflict",
    "Expired",
    "Forbidden",
    "NotFound",
    "Resource",
    "Server",
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
        "Expired": "errors",
        "Forbidden": "errors",
        "JOBS": "client",
        "NotFound": "errors",
        "PODS": "client",
        "Resource": "client",
        "Server": "credentials",
        "Unreachable": "errors",
        "Watch": "watch",
        "server_for": "credentials",
    },
)
