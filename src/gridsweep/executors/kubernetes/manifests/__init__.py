"""Kubernetes manifests as values: a sweep in, dictionaries out. Nothing here reads, writes or knows the time."""
