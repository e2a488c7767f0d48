"""Kubernetes objects as values: the manifests of a sweep, its workers and its server."""
