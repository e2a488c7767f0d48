"""The one HTTP layer to a Kubernetes API server: requests with patience, watches, credentials."""

from gridsweep.cluster_api.client import Api, Resource
from gridsweep.cluster_api.credentials import Server, server_for
from gridsweep.cluster_api.errors import ApiError, Conflict, Expired, Forbidden, NotFound, Unreachable
from gridsweep.cluster_api.watch import Watch

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
