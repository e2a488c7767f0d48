"""Executors, which run workers: on this machine, on Ray, or on Kubernetes."""
