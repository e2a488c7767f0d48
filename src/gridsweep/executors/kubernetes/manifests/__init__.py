"""Kubernetes objects as values: what a sweep, its workers and its server become on a cluster."""
