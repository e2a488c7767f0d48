"""The one HTTP layer to a Kubernetes API server: requests with patience, watches, credentials."""

from gridsweep.executors.kubernetes.api.client import Api, Resource
from gridsweep.executors.kubernetes.api.credentials import Server, server_for
from gridsweep.executors.kubernetes.api.errors import ApiError, Conflict, Expired, Forbidden, NotFound, Unreachable
from gridsweep.executors.kubernetes.api.watch import Watch

__all__ = [
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
